"""Complete IoU loss: IoU, the distance of the centres and the aspect ratio."""

from functools import partial
from typing import ClassVar

from torch import Tensor

from detloss.boxes.lengths import TINY, Lengths, least_side
from detloss.boxes.overlaps import ciou
from detloss.kernels import Reduction, box_loss
from detloss.kernels.box_pairs import AspectDifference, BoxPairs, CentreDistance
from detloss.registry import REGRESSION, Positive
from detloss.regression.base import BoxLoss, Space


def ciou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Complete IoU loss of each pair of boxes, ``1 - CIoU``.

    ``CIoU = IoU - d^2 / c^2 - alpha v``: d the distance of the two centres, c the diagonal of the
    smallest box around A and B, ``v = 4 / pi^2 (atan(wt / ht) - atan(w / h))^2`` and ``alpha = v /
    (1 - IoU + v)``. Alpha is a weight and carries no gradient, as in the authors' code. The
    gradient of v is ``dv/dw = -k h``, ``dv/dh = k w``, ``k = 8 / pi^2 (atan(wt / ht) - atan(w / h))
    / (w^2 + h^2)``. The paper's implementation drops that last denominator; it is kept here.

    It is good where boxes have to be tight: once the centres agree, it still has a term for the
    shape, which neither IoU nor the distance tells from the size.

    Args:
        pred: Predicted boxes (..., 4) as (x1, y1, x2, y2), floating point.
        target: Ground-truth boxes of the same shape, in the unit of `pred`: pixels or fractions
            of the image. The loss does not change with the unit.
        eps: Square of the least side of a target, in the unit of the boxes: a shorter side counts
            as that long, so that no gradient exceeds ``10 / sqrt(eps)``. Make it smaller where
            objects are: 1e-7 is 0.4 px of a 1280 px image in fractions.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss in [0, 2.5): 0 for identical boxes without a side below sqrt(eps). float16 and bfloat16
        are computed in float32.

    Raises:
        TypeError: If a box tensor is not floating point.
        ValueError: If the shapes differ or a last axis is not 4.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is at least 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`. Alpha applies at every
        IoU; the variant that gates it at IoU > 0.5 gives other numbers.

    Example:
        >>> import torch
        >>> ciou_loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 1, 2, 2]]))
        tensor([1.2500])

    Reference:
        Zheng et al., "Distance-IoU Loss", AAAI 2020, arXiv:1911.08287.
    """
    return box_loss(
        partial(_ciou_loss, eps=eps),
        pred,
        target,
        fused=partial(_fused, eps=eps),
        weight=weight,
        reduction=reduction,
    )


def _ciou_loss(pred: Tensor, target: Tensor, eps: float) -> Tensor:
    pairs = Lengths(pred, target, least_side(eps))
    return 1 - ciou(pairs) + pairs.turning


def _fused(pred: Tensor, gradient: Tensor | None, target: Tensor, eps: float) -> Tensor:
    """`_ciou_loss` of boxes (N, 4), as (N,); its gradient is written over `gradient` (N, 4)."""
    pairs = BoxPairs(pred, target, least_side(eps))
    distance = CentreDistance(pairs)
    aspect = AspectDifference(pairs)
    distant = 1 - pairs.iou
    alpha = aspect.value / (distant + aspect.value).clamp_(min=TINY)
    by_sides = aspect.by_sides
    pairs.gradient(
        gradient,
        sides=by_sides._replace(other=by_sides.other * alpha),
        hull_sides=distance.by_hull_sides,
        offset=distance.by_offset,
        turning=True,
    )
    return pairs.rows(distant.add_(distance.value).addcmul_(alpha, aspect.value))


@REGRESSION.register("ciou")
class CIoULoss(BoxLoss):
    """`ciou_loss` as a module.

    Args:
        eps: See `ciou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> CIoULoss()(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor(0.7436)
    """

    function = staticmethod(ciou_loss)
    space: ClassVar[Space] = "boxes"

    def __init__(self, *, eps: Positive = 1e-7, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.eps = eps
