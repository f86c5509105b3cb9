"""Boxes as planes, a tensor for each coordinate: how a matcher meets every anchor with every box.

Planes are (4, ...): x1, y1, x2 and y2. Those of two kinds of boxes broadcast. No gradient is asked
of them, so intermediate results are overwritten; the planes themselves are not.
"""

import torch
from torch import Tensor

from detloss.boxes.lengths import TINY


def planes(boxes: Tensor, multiple: int = 1) -> Tensor:
    """Planes (4, N) of boxes (N, 4), each contiguous.

    N is rounded up to a multiple of `multiple`; the boxes added are points at 0. An inverted box
    may stay as it is: its intersection with any other box is 0, and so are IoU and IoF.
    """
    missing = -len(boxes) % multiple
    return torch.cat([boxes.t(), boxes.new_zeros(4, missing)], 1)


def iou_of_planes(a: Tensor, b: Tensor) -> Tensor:
    """`detloss.boxes.overlaps.iou` of planes, equal to the bit.

    Areas are computed before the boxes are paired.
    """
    shared = _shared_of_planes(a, b)
    union = (area_of_planes(a) + area_of_planes(b)).sub_(shared)
    return shared.div_(union.clamp_(min=TINY**2))


def iof_of_planes(a: Tensor, b: Tensor) -> Tensor:
    """`detloss.boxes.overlaps.iof` of planes, equal to the bit."""
    return _shared_of_planes(a, b).div_(area_of_planes(a).clamp_(min=TINY))


def area_of_planes(boxes: Tensor) -> Tensor:
    """Width times height of planes, also where they are negative.

    It is not finite where a coordinate is not.
    """
    x1, y1, x2, y2 = boxes.unbind()
    return (x2 - x1).mul_(y2 - y1)


def _shared_of_planes(a: Tensor, b: Tensor) -> Tensor:
    """The area of the intersection."""
    ax1, ay1, ax2, ay2 = a.unbind()
    bx1, by1, bx2, by2 = b.unbind()
    start = torch.maximum(ax1, bx1)
    width = torch.minimum(ax2, bx2).sub_(start).clamp_(min=0)
    torch.maximum(ay1, by1, out=start)
    return torch.minimum(ay2, by2).sub_(start).clamp_(min=0).mul_(width)


def share_area(a: Tensor, b: Tensor) -> Tensor:
    """Whether boxes of planes overlap.

    One without an area, or inverted, may where it lies strictly inside: callers look at its sides.
    """
    return (a[0] < b[2]) & (a[2] > b[0]) & (a[1] < b[3]) & (a[3] > b[1])


def centres(boxes: Tensor) -> Tensor:
    """(2, ...) x and y of the centres of planes, finite like these."""
    return boxes[:2] / 2 + boxes[2:] / 2


def middle_of(boxes: Tensor, region: float) -> Tensor:
    """Planes of boxes about the same centres, of `region` times their sides."""
    centre, half = centres(boxes), (boxes[2:] - boxes[:2]) * (region / 2)
    return torch.cat([centre - half, centre + half])


def has_centre(boxes: Tensor, cells: Tensor) -> Tensor:
    """Whether the centre of a box with an area lies in a cell, its low edges included."""
    x, y = centres(boxes).unbind()
    inside = (x >= cells[0]) & (x < cells[2]) & (y >= cells[1]) & (y < cells[3])
    return inside & (boxes[2] > boxes[0]) & (boxes[3] > boxes[1])


def as_points(boxes: Tensor) -> Tensor:
    """(..., 4) the centres of boxes (..., 4), as boxes without a side."""
    middle = centres(boxes.movedim(-1, 0)).movedim(0, -1)
    return torch.cat([middle, middle], -1)
