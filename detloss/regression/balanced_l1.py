"""Balanced L1 loss on deltas: small differences count more than in smooth L1."""

import math
from functools import partial
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from detloss.kernels import Reduction, box_loss
from detloss.kernels.elementary import without_first_power
from detloss.options import check_choice
from detloss.registry import REGRESSION, Positive
from detloss.regression.base import BoxLoss, Space

Convention = Literal["paper", "mmdet"]
CONVENTIONS = get_args(Convention)


def balanced_l1_loss(
    pred: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.5,
    gamma: float = 1.5,
    beta: float = 1.0,
    convention: Convention = "paper",
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Balanced L1 loss of deltas, summed over the four coordinates of a row.

    ``L = sum_i l(|d_i|)``, ``l(x) = alpha / b (b x + 1) ln(b x + 1) - alpha x`` below 1 and ``gamma
    x + C`` above it, with ``b = exp(gamma / alpha) - 1`` and ``C = gamma / b - alpha``. The
    gradient ``alpha ln(b x + 1)`` rises steeply and ends at gamma, without a step.

    It is good where outliers must not rule a batch, and yet accurate boxes should go on improving:
    of two losses with the same slope far away it has the larger one near 0. It costs autograd, as
    it has no closed form.

    Args:
        pred: Predicted deltas (..., 4), floating point, any unit.
        target: True deltas of the same shape.
        alpha: Size of the gradient of small differences, > 0.
        gamma: Gradient of large differences, > 0.
        beta: Where the loss turns linear, in the unit of the deltas. It is > 0; the paper has 1
            alone.
        convention: What it follows where implementations differ. "paper": by another beta it is the
            paper's loss of differences over beta, times beta. "mmdet": beta only divides inside of
            the logarithm, so that the gradient has a step at 0 and the loss is below 0 for some
            differences, if beta is above 1.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss >= 0 by the paper's convention. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If a tensor is not floating point.
        ValueError: If the shapes differ, a last axis is not 4 or the convention is unknown.

    Example:
        >>> import torch
        >>> balanced_l1_loss(torch.tensor([[3.0, 0, 0, -1]]), torch.zeros(1, 4))
        tensor([5.1572])

    Reference:
        Pang et al., "Libra R-CNN: Towards Balanced Learning for Object Detection", CVPR 2019,
        arXiv:1904.02701, equations 8 to 10.
    """
    check_choice("convention", convention, CONVENTIONS)
    formula = partial(_balanced_l1, alpha=alpha, gamma=gamma, beta=beta, convention=convention)
    return box_loss(formula, pred, target, weight=weight, reduction=reduction)


def _balanced_l1(
    pred: Tensor, target: Tensor, alpha: float, gamma: float, beta: float, convention: Convention
) -> Tensor:
    b = math.expm1(gamma / alpha)
    distance = (pred - target).abs()
    if convention == "mmdet":
        inner = distance.clamp(max=beta)
        curve = alpha / b * (b * inner + 1) * torch.log1p(b * inner / beta) - alpha * inner
        beyond = gamma * distance + (gamma / b - alpha * beta)
        return torch.where(distance < beta, curve, beyond).sum(-1)
    distance = distance / beta
    inner = distance.clamp(max=1)
    curve = alpha / b * _area_under_the_logarithm(b * inner)
    return (beta * (curve + gamma * (distance - inner))).sum(-1)


def _area_under_the_logarithm(u: Tensor) -> Tensor:
    """``(1 + u) ln(1 + u) - u``, the integral of ``ln(1 + s)`` from 0 to u, with all its digits."""
    return (1 + u) * without_first_power(u / (1 + u), torch.log1p(u))


@REGRESSION.register("balanced_l1")
class BalancedL1Loss(BoxLoss):
    """`balanced_l1_loss` as a module.

    Args:
        alpha: See `balanced_l1_loss`.
        gamma: See `balanced_l1_loss`.
        beta: See `balanced_l1_loss`.
        convention: See `balanced_l1_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> BalancedL1Loss()(torch.tensor([[3.0, 0, 0, -1]]), torch.zeros(1, 4))
        tensor(5.1572)
    """

    function = staticmethod(balanced_l1_loss)
    space: ClassVar[Space] = "deltas"

    def __init__(
        self,
        *,
        alpha: Positive = 0.5,
        gamma: Positive = 1.5,
        beta: Positive = 1.0,
        convention: Convention = "paper",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        self.alpha = alpha
        self.gamma = gamma
        self.beta = beta
        self.convention = convention
