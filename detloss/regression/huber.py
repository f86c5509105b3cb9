"""Huber loss on deltas: quadratic near 0, linear far from it, with a slope of delta."""

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from detloss.kernels import Reduction, box_loss
from detloss.options import check_positive
from detloss.registry import REGRESSION, Positive
from detloss.regression.base import BoxLoss, Space


def huber_loss(
    pred: Tensor,
    target: Tensor,
    *,
    delta: float = 1.0,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Huber loss of deltas, summed over the four coordinates of a row.

    ``L = sum_i d_i^2 / 2`` where ``|d_i| < delta``, else ``delta (|d_i| - delta / 2)``: delta times
    the smooth L1 of that beta. It is good where smooth L1 is, and where the quadratic part should
    keep its weight whatever delta is; the weight of the term has to be the larger, the smaller
    delta is.

    Args:
        pred: Predicted deltas (..., 4), floating point, any unit.
        target: True deltas of the same shape.
        delta: Where the loss turns from quadratic to linear, > 0, in the unit of the deltas.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss >= 0. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If a tensor is not floating point.
        ValueError: If the shapes differ, a last axis is not 4 or `delta` is not above 0.

    Example:
        >>> import torch
        >>> huber_loss(torch.tensor([[3.0, 0, 0, -1]]), torch.zeros(1, 4), delta=2.0)
        tensor([4.5000])

    Reference:
        Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics 35,
        1964.
    """
    check_positive("delta", delta)
    formula, fused = partial(_huber, delta=delta), partial(_fused, delta=delta)
    return box_loss(formula, pred, target, fused=fused, weight=weight, reduction=reduction)


def _huber(pred: Tensor, target: Tensor, delta: float) -> Tensor:
    distance = (pred - target).abs()
    inner = distance.clamp(max=delta)
    return (inner * (distance - inner / 2)).sum(-1)


def _fused(pred: Tensor, gradient: Tensor | None, target: Tensor, delta: float) -> Tensor:
    """`_huber` of deltas (N, 4), as (N,); its gradient is written over `gradient` (N, 4)."""
    difference = pred - target
    inner = torch.clamp(difference, -delta, delta, out=gradient)
    return difference.sub_(inner, alpha=0.5).mul_(inner).sum(-1)


@REGRESSION.register("huber")
class HuberLoss(BoxLoss):
    """`huber_loss` as a module.

    Args:
        delta: See `huber_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> HuberLoss(delta=2.0)(torch.tensor([[3.0, 0, 0, -1]]), torch.zeros(1, 4))
        tensor(4.5000)
    """

    function = staticmethod(huber_loss)
    space: ClassVar[Space] = "deltas"

    def __init__(self, *, delta: Positive = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.delta = delta
