"""Elementwise classification losses: every class is a yes-or-no question of its own.

The loss of a "yes" with logit x is the loss of a "no" with logit -x, for cross-entropy, focal,
hinge and squared error alike. So a technique is one function, `negative(z)`: the loss of a
negative whose logit is z. Everything else, signs, class indices, soft labels and weights, is here.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from detloss.boxes.checking import widen
from detloss.kernels.engine import Formula, run
from detloss.kernels.reduction import Reduction, check_reduction, check_weight
from detloss.kernels.targets import dense_target, is_index_target, per_class_values

Elementwise = Callable[[Tensor], Tensor]
WithSlope = Callable[[Tensor], tuple[Tensor, Tensor]]


def binary_loss(
    negative: Elementwise,
    logits: Tensor,
    target: Tensor,
    *,
    with_slope: WithSlope | None = None,
    soft: Callable[[Tensor, Tensor], Tensor] | None = None,
    alpha: float | Sequence[float] | Tensor | None = None,
    class_weight: Sequence[float] | Tensor | None,
    weight: Tensor | None,
    ignore_index: int,
    reduction: Reduction,
) -> Tensor:
    """``alpha y negative(-x) + (1 - alpha) (1 - y) negative(x)``, weighted and reduced.

    Args:
        negative: The loss of a negative with logit z, elementwise, plain and differentiable.
        logits: (..., C).
        target: Class indices (...,): 0..C-1 says yes to that class, C (or any other index) to
            none, `ignore_index` ignores the row. Or the share y of "yes", (..., C) in [0, 1].
        with_slope: The same with its derivative, ``z -> (loss, slope)``, in few passes; it may use
            up z. None: autograd.
        soft: Replaces the formula above for a dense target, as ``soft(x, y)``.
        alpha: Weight of "yes" against 1 - alpha of "no": a float, (C,) values, or None for 1 and 1.
        class_weight: (C,) factors.
        weight: (...,) or (..., C) factors.
        ignore_index: The class index of rows to leave out.
        reduction: "none" -> (..., C), "sum", or "mean" over the elements not ignored.
    """
    by_index = is_index_target(logits, target)
    check_reduction(reduction)
    if weight is not None:
        check_weight(weight, logits.shape, elementwise=True)

    yes = no = torch.ones((), dtype=widen(logits).dtype, device=logits.device)
    if isinstance(alpha, int | float):
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {alpha}")
        yes, no = yes * alpha, yes * (1 - alpha)
    elif alpha is not None:
        yes = per_class_values("alpha", alpha, logits)
        no = 1 - yes
    if class_weight is not None:
        scale = per_class_values("class_weight", class_weight, logits)
        yes, no = yes * scale, no * scale

    count: Tensor | float = logits.numel()
    if by_index:
        formula = _of_index(negative, with_slope, yes, no)
        counted = target != ignore_index
        weight = _mask(weight, counted)
        if reduction == "mean":
            count = counted.sum() * logits.shape[-1]
    else:
        formula = _of_share(negative, with_slope, soft, yes, no)
        target = dense_target(logits, target)
    return run(formula, logits, target, weight=weight, count=count, reduction=reduction)


def _of_index(
    negative: Elementwise, with_slope: WithSlope | None, yes: Tensor, no: Tensor
) -> Formula:
    """The formula for class indices (N,): of each row at most one column says yes."""

    def value(x: Tensor, index: Tensor) -> Tensor:
        is_yes = index[..., None] == torch.arange(x.shape[-1], device=x.device)
        return negative(torch.where(is_yes, -x, x)) * torch.where(is_yes, yes, no)

    if with_slope is None:
        return Formula(value)

    def fused(x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        row = ((index >= 0) & (index < x.shape[-1])).nonzero()[:, 0]
        column = index[row]
        z = x.clone()
        z[row, column] = -x[row, column]
        loss, slope = with_slope(z)
        factor = yes.expand(x.shape[-1])[column]
        yes_loss, yes_slope = loss[row, column] * factor, slope[row, column] * -factor
        loss.mul_(no)[row, column] = yes_loss
        slope.mul_(no)[row, column] = yes_slope
        return loss, slope

    return Formula(value, fused)


def _of_share(
    negative: Elementwise,
    with_slope: WithSlope | None,
    soft: Callable[[Tensor, Tensor], Tensor] | None,
    yes: Tensor,
    no: Tensor,
) -> Formula:
    """The formula for a share of "yes" of each class (N, C)."""

    def value(x: Tensor, share: Tensor) -> Tensor:
        if soft is not None:
            return yes * soft(x, share)
        return yes * share * negative(-x) + no * (1 - share) * negative(x)

    if with_slope is None or soft is not None:
        return Formula(value)

    def fused(x: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        yes_loss, yes_slope = with_slope(-x)
        no_loss, no_slope = with_slope(x.clone())
        for_yes, for_no = yes * share, no * (1 - share)
        loss = yes_loss.mul_(for_yes).addcmul_(no_loss, for_no)
        return loss, no_slope.mul_(for_no).addcmul_(yes_slope, for_yes, value=-1)

    return Formula(value, fused)


def _mask(weight: Tensor | None, counted: Tensor) -> Tensor:
    """`weight` with 0 in the rows that do not count; booleans where there is no weight."""
    if weight is None:
        return counted
    return torch.where(counted if weight.ndim == counted.ndim else counted[..., None], weight, 0)
