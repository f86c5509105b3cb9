"""The overlap family: how much two boxes agree.

Every measure takes the `Lengths` of pairs of boxes that broadcast, so that its paired and its
pairwise form are the same arithmetic. A box with x2 < x1 or y2 < y1 is empty. A loss on boxes in
`detloss.regression` is 1 minus such a measure, or a function of it, and says the measure too.
"""

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from detloss.boxes.checking import check_boxes
from detloss.boxes.lengths import TINY, Lengths, product
from detloss.registry import OneOf
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


Overlap = Callable[[Lengths], Tensor]
OVERLAPS: dict[str, Overlap] = {"iou": iou, "iof": iof}
"""Every overlap by its kind. A box loss adds the one that it is a loss of; so all are here once
`detloss` is imported.
"""


OverlapKind = Annotated[str, OneOf(OVERLAPS)]
"""The kinds there are when an option is checked."""


def paired_overlap(a: Tensor, b: Tensor, *, kind: str = "iou") -> Tensor:
    """Overlap of each box of `a` with the box of `b` in the same place.

    ``IoU = |A n B| / |A u B|``, ``IoF = |A n B| / |A|``. Any other kind is 1 less the loss of its
    name, with the defaults of its options; see there for its equation. A distance in it is measured
    in the unit of the boxes.

    Args:
        a: (..., 4) as (x1, y1, x2, y2), floating point.
        b: (..., 4) of the same shape, in the same unit. The result has no unit.
        kind: One of `detloss.boxes.OVERLAPS`: "iou", "iof", or the overlap that a box loss is 1
            less of, by the name of the loss.

    Returns:
        (...,): at most 1; "iou" and "iof" at least 0. An inverted or zero-area box shares nothing:
        its IoU is 0. float16 and bfloat16 are computed and returned in float32.

    Raises:
        TypeError: If boxes are not floating point.
        ValueError: If the shapes differ, the last axis is not 4 or the kind is unknown.

    Example:
        >>> a, b = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]])
        >>> paired_overlap(a, b), paired_overlap(a, b, kind="iof")
        (tensor([0.3333]), tensor([0.5000]))

    Reference:
        Jaccard, "The Distribution of the Flora in the Alpine Zone", New Phytologist 11, 1912.
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
        kind: One of `detloss.boxes.OVERLAPS`: "iou", "iof", or the overlap that a box loss is 1
            less of, by the name of the loss.

    Returns:
        (N, M); the values of `paired_overlap`, to the bit, but for the last bit of kinds with an
        arctangent, an exponential or a power, which PyTorch rounds by an element's place in memory.

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


def _measure(kind: str) -> Overlap:
    if kind not in OVERLAPS:
        raise ValueError(f"kind must be one of {', '.join(sorted(OVERLAPS))}, got {kind!r}")
    return OVERLAPS[kind]
