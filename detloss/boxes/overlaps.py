"""The overlap family: how much two boxes agree.

Every measure takes corners (..., 4) that broadcast, so that its paired and its pairwise form are
the same arithmetic. A box with x2 < x1 or y2 < y1 is empty, see `corners`. A loss on boxes in
`detloss.regression` is 1 minus such a measure, or a function of it.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from detloss.boxes.checking import check_boxes
from detloss.boxes.lengths import TINY, Lengths, product, squared_length
from detloss.tensors import check_same_shape, widen


def box_area(boxes: Tensor) -> Tensor:
    """Area of each box, 0 where it is inverted.

    Args:
        boxes: (..., 4) as (x1, y1, x2, y2), floating point.

    Returns:
        (...,) in the unit of `boxes` squared; float16 and bfloat16 give float32.

    Raises:
        TypeError: If `boxes` is not floating point.
        ValueError: If the last axis is not 4.

    Example:
        >>> box_area(torch.tensor([[0.0, 0, 3, 2], [5, 5, 4, 9]]))
        tensor([6., 0.])
    """
    check_boxes("boxes", boxes)
    return area(widen(boxes))


def area(boxes: Tensor) -> Tensor:
    """Width times height of boxes (..., 4), each side at least 0."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (torch.maximum(x1, x2) - x1) * (torch.maximum(y1, y2) - y1)


def iou(pairs: Lengths) -> Tensor:
    """``|A n B| / |A u B|``, in [0, 1]; 0 for two empty boxes."""
    return pairs.iou


def iof(pairs: Lengths) -> Tensor:
    """``|A n B| / |A|``, in [0, 1]: how much of A lies inside B. Not symmetric."""
    return product(pairs.shared_sides) / product(pairs.sides).clamp(min=TINY)


def giou(pairs: Lengths) -> Tensor:
    """``IoU - (|C| - |A u B|) / |C|``, C the smallest box around both, in [-1, 1]."""
    shared, union = pairs.shared_and_union
    hull_area = pairs.hull_area
    empty = (hull_area - union) / hull_area
    rounded = empty.detach().clamp(max=0)  # below 0, where the hull is the union
    return shared / union - (empty - rounded)


def diou(pairs: Lengths) -> Tensor:
    """``IoU - d^2 / c^2``: d between the centres, c the hull's diagonal, in [-1, 1]."""
    return pairs.iou - centre_distance(pairs)


def ciou(pairs: Lengths) -> Tensor:
    """``DIoU - alpha v``, v the difference of aspect ratios; alpha carries no gradient."""
    overlap, v = pairs.iou, aspect_difference(pairs)
    with torch.no_grad():
        alpha = v / (1 - overlap + v).clamp(min=TINY)
    return overlap - centre_distance(pairs) - alpha * v


def centre_distance(pairs: Lengths) -> Tensor:
    """Squared distance of the centres over the squared diagonal of the hull, in [0, 1)."""
    return squared_length(pairs.offset) / squared_length(pairs.hull_sides)


def aspect_difference(pairs: Lengths) -> Tensor:
    """``v`` of CIoU, in [0, 1]: the squared difference of the diagonals' angles over (pi/2)^2.

    ``atan2(w, h)`` is ``atan(w / h)``, and is defined for a flat box too.
    """
    angle, target_angle = (
        torch.atan2(*_with_raised_height(sides, pairs.min_size))
        for sides in (pairs.sides, pairs.target_sides)
    )
    difference = target_angle - angle
    return (4 / math.pi**2) * difference * difference


def _with_raised_height(sides: Tensor, min_size: float) -> tuple[Tensor, Tensor]:
    """Width and height, raised until both sum to `min_size`: so the angle's gradient is bounded,
    even at a point. The rise itself carries no gradient.
    """
    width, height = sides
    raised = torch.maximum(height, min_size - width)
    return width, height + (raised - height).detach()


Overlap = Callable[[Lengths], Tensor]
OVERLAPS: dict[str, Overlap] = {"iou": iou, "iof": iof, "giou": giou, "diou": diou, "ciou": ciou}


def paired_overlap(a: Tensor, b: Tensor, *, kind: str = "iou") -> Tensor:
    """Overlap of each box of `a` with the box of `b` in the same place.

    ``IoU = |A n B| / |A u B|``; ``GIoU = IoU - (|C| - |A u B|) / |C|`` with C the smallest box
    around both; ``DIoU = IoU - d^2 / c^2`` with d the distance of the centres and c the diagonal
    of C; ``CIoU = DIoU - alpha v`` with ``v = 4 / pi^2 (atan(wb / hb) - atan(wa / ha))^2`` and
    ``alpha = v / (1 - IoU + v)``; ``IoF = |A n B| / |A|``.

    Args:
        a: (..., 4) as (x1, y1, x2, y2), floating point.
        b: (..., 4) of the same shape, in the same unit. The result has no unit.
        kind: "iou", "iof", "giou", "diou" or "ciou".

    Returns:
        (...,): "iou" and "iof" in [0, 1], "giou" and "diou" in [-1, 1], "ciou" in [-1.5, 1].
        An inverted or zero-area box shares nothing: its IoU is 0. float16 and bfloat16 are
        computed and returned in float32.

    Raises:
        TypeError: If boxes are not floating point.
        ValueError: If the shapes differ, the last axis is not 4 or the kind is unknown.

    Example:
        >>> a, b = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]])
        >>> paired_overlap(a, b), paired_overlap(a, b, kind="iof")
        (tensor([0.3333]), tensor([0.5000]))

    Reference:
        Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019, arXiv:1902.09630;
        Zheng et al., "Distance-IoU Loss", AAAI 2020, arXiv:1911.08287.
    """
    check_boxes("a", a)
    check_boxes("b", b)
    check_same_shape("a", a, "b", b)
    return _measure(kind)(Lengths(widen(a), widen(b)))


def pairwise_overlap(a: Tensor, b: Tensor, *, kind: str = "iou") -> Tensor:
    """Overlap of every box of `a` with every box of `b`; the measures of `paired_overlap`.

    Args:
        a: (N, 4) as (x1, y1, x2, y2), floating point; N may be 0.
        b: (M, 4) in the same unit; M may be 0.
        kind: "iou", "iof", "giou", "diou" or "ciou".

    Returns:
        (N, M); the values of `paired_overlap`, to the bit, but for the last bit of "ciou", where
        PyTorch's arctangent rounds by an element's place in memory.

    Raises:
        TypeError: If boxes are not floating point.
        ValueError: If a shape is not (N, 4) or the kind is unknown.

    Example:
        >>> a, b = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[0.0, 0, 1, 2], [2.0, 0, 4, 2]])
        >>> pairwise_overlap(a, b, kind="giou")
        tensor([[0.5000, 0.0000]])
    """
    for name, boxes in (("a", a), ("b", b)):
        check_boxes(name, boxes)
        if boxes.ndim != 2:
            raise ValueError(f"{name} must have shape (N, 4), got {tuple(boxes.shape)}")
    return _measure(kind)(Lengths(widen(a)[:, None], widen(b)[None]))


def planes(boxes: Tensor, multiple: int = 1) -> Tensor:
    """x1, y1, x2, y2 of boxes (N, 4), each in a row of its own: (4, N).

    N is rounded up to a multiple of `multiple`; the boxes added are points at 0. An inverted box
    may stay as it is: it shares nothing with any other box, so every measure of planes gives 0.
    """
    missing = -len(boxes) % multiple
    return torch.cat([boxes.t(), boxes.new_zeros(4, missing)], 1)


def iou_of_planes(a: Tensor, b: Tensor) -> Tensor:
    """`iou` of `planes` (4, ...) that broadcast, equal to the bit: for a matcher.

    It has no gradient, so it works in place. Areas are computed before the boxes are paired.
    """
    shared = _shared_of_planes(a, b)
    union = (area_of_planes(a) + area_of_planes(b)).sub_(shared)
    return shared.div_(union.clamp_(min=TINY**2))


def iof_of_planes(a: Tensor, b: Tensor) -> Tensor:
    """`iof` of `planes` (4, ...) that broadcast, equal to the bit, without a gradient."""
    return _shared_of_planes(a, b).div_(area_of_planes(a).clamp_(min=TINY))


def area_of_planes(boxes: Tensor) -> Tensor:
    """Width times height of `planes` (4, ...), also where they are negative.

    It is not finite where a coordinate is not.
    """
    x1, y1, x2, y2 = boxes.unbind()
    return (x2 - x1).mul_(y2 - y1)


def _shared_of_planes(a: Tensor, b: Tensor) -> Tensor:
    """`intersection` of `planes` (4, ...) that broadcast, equal to the bit, without a gradient."""
    ax1, ay1, ax2, ay2 = a.unbind()
    bx1, by1, bx2, by2 = b.unbind()
    start = torch.maximum(ax1, bx1)
    width = torch.minimum(ax2, bx2).sub_(start).clamp_(min=0)
    torch.maximum(ay1, by1, out=start)
    return torch.minimum(ay2, by2).sub_(start).clamp_(min=0).mul_(width)


def _measure(kind: str) -> Overlap:
    if kind not in OVERLAPS:
        raise ValueError(f"kind must be one of {', '.join(OVERLAPS)}, got {kind!r}")
    return OVERLAPS[kind]
