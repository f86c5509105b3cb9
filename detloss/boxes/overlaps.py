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
from detloss.tensors import check_same_shape, widen

TINY = 1e-16
"""Floor of a denominator, which is only there to make 0 / 0 be 0. Its square is still a float32.

A loss needs a higher floor, to bound its gradient: the `min_size` of each measure, see
`floored_union`.
"""

Overlap = Callable[[Tensor, Tensor, float], Tensor]


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


def corners(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x1, y1, x2, y2 of boxes (..., 4); an inverted side collapses onto its first corner.

    So an inverted box is a flat one: it has no area, but a hull still has to contain it.
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    return x1, y1, torch.maximum(x1, x2), torch.maximum(y1, y2)


def area(boxes: Tensor) -> Tensor:
    """Width times height of boxes (..., 4), each side at least 0."""
    width, height = sides(boxes)
    return width * height


def sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Width and height of boxes (..., 4), at least 0."""
    x1, y1, x2, y2 = corners(boxes)
    return x2 - x1, y2 - y1


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """Area that `a` and `b` share.

    ``maximum`` rather than ``clamp``: at a tie it passes half of the gradient in every version of
    PyTorch, so that a box which just touches, or is flat, can still grow.
    """
    ax1, ay1, ax2, ay2 = corners(a)
    bx1, by1, bx2, by2 = corners(b)
    nothing = ax1.new_zeros(())
    width = torch.maximum(torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1), nothing)
    height = torch.maximum(torch.minimum(ay2, by2) - torch.maximum(ay1, by1), nothing)
    return width * height


def hull_sides(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Width and height of the smallest box around `a` and `b`."""
    ax1, ay1, ax2, ay2 = corners(a)
    bx1, by1, bx2, by2 = corners(b)
    width = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)
    height = torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    return width, height


def least_side(eps: float) -> float:
    """``sqrt(eps)``, the `min_size` of a loss; large enough that its fourth power is a float32."""
    return math.sqrt(max(eps, TINY))


def at_least(values: Tensor, floor: float) -> Tensor:
    """``maximum(values, floor)``, which passes half of the gradient at a tie."""
    return torch.maximum(values, values.new_full((), floor))


def floored_union(union: Tensor, b: Tensor, min_size: float) -> Tensor:
    """`union` as a denominator: at least the area of `b` with its sides raised to `min_size`.

    `b` is the target of a loss. If none of its sides is below `min_size`, nothing changes, because
    the union contains `b`. If one is, this floor bounds the gradient, by about ``1 / min_size``.
    """
    if min_size == 0:
        return union.clamp(min=TINY)
    width, height = sides(b)
    floor = at_least(width, min_size) * at_least(height, min_size)
    return torch.maximum(union, torch.where(floor > width * height, floor, 0))


def iou(a: Tensor, b: Tensor, min_size: float = 0.0) -> Tensor:
    """``|A n B| / |A u B|``, in [0, 1]; 0 for two empty boxes."""
    shared, union = _shared_and_union(a, b)
    return shared / floored_union(union, b, min_size)


def iof(a: Tensor, b: Tensor, min_size: float = 0.0) -> Tensor:
    """``|A n B| / |A|``, in [0, 1]: how much of `a` lies inside `b`. Not symmetric."""
    return intersection(a, b) / area(a).clamp(min=max(min_size**2, TINY))


def giou(a: Tensor, b: Tensor, min_size: float = 0.0) -> Tensor:
    """``IoU - (|C| - |A u B|) / |C|``, C the smallest box around both, in [-1, 1]."""
    shared, union = _shared_and_union(a, b)
    width, height = hull_sides(a, b)
    floored = at_least(width, min_size) * at_least(height, min_size)
    empty = (width * height - union) / floored.clamp(min=TINY)
    return shared / floored_union(union, b, min_size) - empty


def diou(a: Tensor, b: Tensor, min_size: float = 0.0) -> Tensor:
    """``IoU - d^2 / c^2``: d between the centres, c the hull's diagonal, in [-1, 1]."""
    return iou(a, b, min_size) - _centre_distance(a, b, min_size)


def ciou(a: Tensor, b: Tensor, min_size: float = 0.0) -> Tensor:
    """``DIoU - alpha v``, v the difference of aspect ratios; alpha carries no gradient."""
    overlap = iou(a, b, min_size)
    v = _aspect_difference(a, b, min_size)
    with torch.no_grad():
        alpha = v / ((1 - overlap).clamp(min=0) + v).clamp(min=TINY)
    return overlap - _centre_distance(a, b, min_size) - alpha * v


def turning(a: Tensor, b: Tensor, min_size: float) -> Tensor:
    """0, with a gradient that turns the inverted sides of `a` round: what a loss adds to a measure.

    In a measure an inverted side has collapsed, so its second corner has no gradient, and inside
    `b` the first one has none either: a predicted box would stay inverted for ever. The gradient
    here is that of ``d / (d + s) / 2`` for each axis, along x ``d = max(x1 - x2, 0)`` of `a` and
    ``s = max(width of b, min_size)``. It is at most ``1 / (2 s)``. The value is left out, so a loss
    of an inverted box is still that of an empty one.
    """
    x1, y1, x2, y2 = a.unbind(-1)
    nothing = x1.new_zeros(())
    width, height = (at_least(side, min_size) for side in sides(b))
    in_x, in_y = torch.maximum(x1 - x2, nothing), torch.maximum(y1 - y2, nothing)
    inverted = (in_x / (in_x + width) + in_y / (in_y + height)) / 2
    return inverted - inverted.detach()


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
    return _measure(kind)(widen(a), widen(b), 0.0)


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
    return _measure(kind)(widen(a)[:, None], widen(b)[None], 0.0)


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
    return shared.div_(union.clamp_(min=TINY))


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


def _shared_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    shared = intersection(a, b)
    return shared, area(a) + area(b) - shared


def _centre_distance(a: Tensor, b: Tensor, min_size: float) -> Tensor:
    """Squared distance of the centres over the squared diagonal of the hull, in [0, 1)."""
    ax1, ay1, ax2, ay2 = corners(a)
    bx1, by1, bx2, by2 = corners(b)
    # differences first: a sum of corners would round at the size of the coordinates
    dx, dy = ((ax1 - bx1) + (ax2 - bx2)) / 2, ((ay1 - by1) + (ay2 - by2)) / 2
    width, height = hull_sides(a, b)
    diagonal = at_least(width * width + height * height, max(min_size**2, TINY))
    return (dx * dx + dy * dy) / diagonal


def _aspect_difference(a: Tensor, b: Tensor, min_size: float) -> Tensor:
    """``v`` of CIoU, in [0, 1]: the squared difference of the diagonals' angles over (pi/2)^2.

    ``atan2(w, h)`` is ``atan(w / h)``, and is defined for a flat box too. The height is raised
    until width and height sum to `min_size`: so the gradient is bounded, even at a point.
    """
    (a_width, a_height), (b_width, b_height) = sides(a), sides(b)
    floor = max(min_size, TINY)
    difference = torch.atan2(b_width, torch.maximum(b_height, floor - b_width)) - torch.atan2(
        a_width, torch.maximum(a_height, floor - a_width)
    )
    return (4 / math.pi**2) * difference * difference
