"""Smooth L1 loss on deltas: quadratic near 0, linear beyond."""

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from detloss.kernels import Reduction, box_loss
from detloss.options import check_non_negative, check_positive
from detloss.registry import REGRESSION, NonNegative
from detloss.regression.base import BoxLoss, Space
from detloss.regression.l1 import l1_loss


def smooth_l1_loss(
    pred: Tensor,
    target: Tensor,
    *,
    beta: float = 1.0,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Smooth L1 of deltas, summed over the four coordinates of a row.

    ``L = sum_i d_i^2 / (2 beta)`` where ``|d_i| < beta``, else ``|d_i| - beta / 2``. Gradient
    ``d / beta`` inside and ``sign(d)`` beyond: at most 1 a coordinate.

    It is good as the first choice on deltas: near the target its steps become smaller, as with
    squares, and an outlier counts no more than with `l1_loss`.

    Args:
        pred: Predicted deltas (..., 4), floating point, any unit.
        target: True deltas of the same shape.
        beta: Where the loss turns linear, in the unit of the deltas. It is at least 0; 0 is exactly
            `l1_loss`. Code with a "sigma" means ``beta = 1 / sigma^2``, see `beta_from_sigma`.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss >= 0. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If a tensor is not floating point.
        ValueError: If the shapes differ, a last axis is not 4 or `beta` is negative.

    Example:
        >>> import torch
        >>> smooth_l1_loss(torch.tensor([[1.0, 0, 0, -2]]), torch.zeros(1, 4))
        tensor([2.])

    Reference:
        Girshick, "Fast R-CNN", ICCV 2015, arXiv:1504.08083, equation 3 (beta = 1).
    """
    check_non_negative("beta", beta)
    if beta == 0:
        return l1_loss(pred, target, weight=weight, reduction=reduction)
    return box_loss(
        partial(_smooth_l1, beta=beta),
        pred,
        target,
        fused=partial(_fused, beta=beta),
        weight=weight,
        reduction=reduction,
    )


def beta_from_sigma(sigma: float) -> float:
    """The `beta` of code that states a ``sigma``: ``1 / sigma^2``.

    Example:
        >>> beta_from_sigma(3.0)  # Faster R-CNN's region proposals
        0.1111111111111111
    """
    check_positive("sigma", sigma)
    return 1 / sigma**2


def huberised(distance: Tensor, beta: float) -> Tensor:
    """``x^2 / (2 beta)`` of distances below beta, ``x - beta / 2`` above."""
    inner = distance.clamp(max=beta)  # the distance inside the quadratic part, beta beyond
    return inner / beta * (distance - inner / 2)


def _smooth_l1(pred: Tensor, target: Tensor, beta: float) -> Tensor:
    return huberised((pred - target).abs(), beta).sum(-1)


def _fused(pred: Tensor, gradient: Tensor | None, target: Tensor, beta: float) -> Tensor:
    """`_smooth_l1` of deltas (N, 4), as (N,); its gradient is written over `gradient` (N, 4)."""
    difference = pred - target
    derivative = torch.div(difference, beta, out=gradient).clamp_(-1, 1)
    # times beta, it is what of the difference lies inside the quadratic part
    return difference.sub_(derivative, alpha=beta / 2).mul_(derivative).sum(-1)


@REGRESSION.register("smooth_l1")
class SmoothL1Loss(BoxLoss):
    """`smooth_l1_loss` as a module.

    Args:
        beta: See `smooth_l1_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> SmoothL1Loss()(torch.tensor([[1.0, 0, 0, -2]]), torch.tensor([[0.5, 0, 0, 0]]))
        tensor(1.6250)
    """

    function = staticmethod(smooth_l1_loss)
    space: ClassVar[Space] = "deltas"

    def __init__(self, *, beta: NonNegative = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.beta = beta
