"""Distance IoU loss: IoU and how far apart the centres are."""

from functools import partial
from typing import ClassVar

from torch import Tensor

from detloss.boxes.lengths import Lengths, least_side
from detloss.boxes.overlaps import diou
from detloss.kernels import Reduction, box_loss
from detloss.kernels.box_pairs import BoxPairs, CentreDistance
from detloss.registry import REGRESSION, Positive
from detloss.regression.base import BoxLoss, Space


def diou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Distance IoU loss of each pair of boxes, ``1 - DIoU``.

    ``DIoU = IoU - d^2 / c^2``: d the distance of the two centres, c the diagonal of the smallest
    box around A and B. Where the boxes do not touch, the second quotient still has a gradient:
    it moves the predicted box straight towards the other centre.

    It is good where predictions start far from their targets or lie inside them: it needs fewer
    steps than a loss that first has to grow the box.

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
        Loss in [0, 2): 0 for identical boxes without a side below sqrt(eps), towards 2 far apart.
        float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If a box tensor is not floating point.
        ValueError: If the shapes differ or a last axis is not 4.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is at least 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`.

    Example:
        >>> import torch
        >>> diou_loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 1, 2, 2]]))
        tensor([1.2500])

    Reference:
        Zheng et al., "Distance-IoU Loss", AAAI 2020, arXiv:1911.08287.
    """
    return box_loss(
        partial(_diou_loss, eps=eps),
        pred,
        target,
        fused=partial(_fused, eps=eps),
        weight=weight,
        reduction=reduction,
    )


def _diou_loss(pred: Tensor, target: Tensor, eps: float) -> Tensor:
    pairs = Lengths(pred, target, least_side(eps))
    return 1 - diou(pairs) + pairs.turning


def _fused(pred: Tensor, gradient: Tensor | None, target: Tensor, eps: float) -> Tensor:
    """`_diou_loss` of boxes (N, 4), as (N,); its gradient is written over `gradient` (N, 4)."""
    pairs = BoxPairs(pred, target, least_side(eps))
    distance = CentreDistance(pairs)
    pairs.gradient(
        gradient,
        hull_sides=distance.by_hull_sides,
        offset=distance.by_offset,
        turning=True,
    )
    return pairs.rows((1 - pairs.iou).add_(distance.value))


@REGRESSION.register("diou")
class DIoULoss(BoxLoss):
    """`diou_loss` as a module.

    Args:
        eps: See `diou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> DIoULoss()(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor(0.7436)
    """

    function = staticmethod(diou_loss)
    space: ClassVar[Space] = "boxes"

    def __init__(self, *, eps: Positive = 1e-7, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.eps = eps
