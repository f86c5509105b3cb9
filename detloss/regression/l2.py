"""L2 loss on deltas."""

from typing import ClassVar

import torch
from torch import Tensor

from detloss.kernels import Reduction, box_loss
from detloss.registry import REGRESSION
from detloss.regression.base import BoxLoss, Space


def l2_loss(
    pred: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Squared difference of deltas, summed over the four coordinates of a row.

    ``L = sum_i d_i^2``, ``d = pred - target``. Gradient ``2 d``: without bound, so one outlier can
    outweigh a batch.

    It is good where targets are exact and errors small, or to compare with work that uses least
    squares.

    Args:
        pred: Predicted deltas (..., 4), floating point, any unit.
        target: True deltas of the same shape.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss >= 0. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If a tensor is not floating point.
        ValueError: If the shapes differ or a last axis is not 4.

    Example:
        >>> import torch
        >>> l2_loss(torch.tensor([[1.0, 0, 0, -2]]), torch.zeros(1, 4))
        tensor([5.])

    Reference:
        Girshick et al., "Rich feature hierarchies" (R-CNN), CVPR 2014, arXiv:1311.2524, appendix
        C: boxes by least squares.
    """
    return box_loss(_l2, pred, target, fused=_fused, weight=weight, reduction=reduction)


def _l2(pred: Tensor, target: Tensor) -> Tensor:
    return (pred - target).square().sum(-1)


def _fused(pred: Tensor, gradient: Tensor | None, target: Tensor) -> Tensor:
    """`_l2` of deltas (N, 4), as (N,); its gradient is written over `gradient` (N, 4)."""
    difference = pred - target
    if gradient is not None:
        torch.mul(difference, 2, out=gradient)
    return difference.square_().sum(-1)


@REGRESSION.register("l2")
class L2Loss(BoxLoss):
    """`l2_loss` as a module.

    Args:
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> L2Loss()(torch.tensor([[1.0, 0, 0, -2]]), torch.tensor([[0.5, 0, 0, 0]]))
        tensor(4.2500)
    """

    function = staticmethod(l2_loss)
    space: ClassVar[Space] = "deltas"

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
