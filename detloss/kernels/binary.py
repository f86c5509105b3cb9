"""Elementwise classification losses: every class is a yes-or-no question of its own.

The loss of a "yes" with logit x is the loss of a "no" with logit -x, for cross-entropy, focal,
hinge and squared error alike. So a technique is one function, `negative(z)`: the loss of a
negative whose logit is z. Everything else is here: signs, class indices, soft and smoothed labels,
and weights.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from detloss.kernels.dispatch import run
from detloss.kernels.formula import Formula
from detloss.kernels.reduction import Reduction, check_reduction, check_weight, only_counted
from detloss.kernels.targets import (
    check_label_smoothing,
    dense_target,
    is_index_target,
    per_class_values,
)
from detloss.tensors import sync_is_free

Elementwise = Callable[[Tensor], Tensor]
WithSlope = Callable[[Tensor, Tensor | None], Tensor]
Factor = Tensor | float


def binary_loss(
    negative: Elementwise,
    logits: Tensor,
    target: Tensor,
    *,
    with_slope: WithSlope | None = None,
    soft: Callable[[Tensor, Tensor], Tensor] | None = None,
    label_smoothing: float = 0.0,
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
        with_slope: The same with its derivative, ``(z, slope) -> loss``, in few passes: writes it
            over `slope` unless that is None, and may use up z. At z = -inf both are 0. Without
            it, autograd.
        soft: Replaces the formula above for a dense or smoothed target, as ``soft(x, y)``.
        label_smoothing: e in [0, 1]: a label y becomes ``y (1 - e) + e / 2``.
        alpha: Weight of "yes" against 1 - alpha of "no": a float, (C,) values, or None for 1 and 1.
        class_weight: (C,) factors.
        weight: (...,) or (..., C) factors.
        ignore_index: The class index of rows to leave out.
        reduction: "none" -> (..., C), "sum", or "mean" over the elements not ignored.
    """
    by_index = is_index_target(logits, target)
    check_reduction(reduction)
    check_label_smoothing(label_smoothing)
    if weight is not None:
        check_weight(weight, logits.shape, elementwise=True)

    yes: Factor = 1.0
    no: Factor = 1.0
    if isinstance(alpha, int | float):
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {alpha}")
        yes, no = float(alpha), 1.0 - alpha
    elif alpha is not None:
        yes = per_class_values("alpha", alpha, logits)
        no = 1 - yes
    if class_weight is not None:
        factor = per_class_values("class_weight", class_weight, logits)
        yes, no = yes * factor, no * factor
    scale = 1.0
    if isinstance(no, float) and no > 0:  # of most elements: the engine multiplies it in
        scale, yes, no = no, yes / no, 1.0

    count: Tensor | float = logits.numel()
    formula = _of_share(negative, with_slope, soft, label_smoothing, yes, no)
    if by_index:
        if reduction == "mean":
            count = (target != ignore_index).sum() * logits.shape[-1]
        if label_smoothing:
            weight = only_counted(weight, target != ignore_index)
        else:
            formula = _of_index(negative, with_slope, yes, no, ignore_index)
    else:
        target = dense_target(logits, target)
    return run(
        formula, logits, target, weight=weight, count=count, reduction=reduction, scale=scale
    )


def _of_index(
    negative: Elementwise,
    with_slope: WithSlope | None,
    yes: Factor,
    no: Factor,
    ignore_index: int,
) -> Formula:
    """The formula for class indices (N,): of each row at most one column says yes."""

    def value(x: Tensor, index: Tensor) -> Tensor:
        is_yes = index[..., None] == torch.arange(x.shape[-1], device=x.device)
        ignored = index[..., None] == ignore_index
        loss = negative(torch.where(is_yes, -x, torch.where(ignored, 0, x)))
        if not (_is_one(yes) and _is_one(no)):
            loss = loss * torch.where(is_yes, _like(x, yes), _like(x, no))
        return torch.where(ignored, 0, loss)

    if with_slope is None:
        return Formula(value)

    def fused(z: Tensor, gradient: Tensor | None, index: Tensor) -> Tensor:
        place, says_yes = _places_of(index, z.shape[-1])
        factor = yes[place % z.shape[-1]] if isinstance(yes, Tensor) else yes
        sign: Factor = -1.0
        if says_yes is not None:
            other = no[place % z.shape[-1]] if isinstance(no, Tensor) else no
            factor = torch.where(says_yes, _like(z, factor), _like(z, other))
            sign = torch.where(says_yes, _like(z, -1.0), _like(z, 1.0))
        _multiply(z, place, sign)
        _silence(z, index == ignore_index)
        loss = with_slope(z, gradient)
        _multiply(loss, place, factor, elsewhere=no)
        if gradient is not None:
            _multiply(gradient, place, factor * sign, elsewhere=no)
        return loss

    return Formula(value, fused, in_place=True)


def _places_of(index: Tensor, classes: int) -> tuple[Tensor, Tensor | None]:
    """Where among the elements (N * C,) a row says yes.

    On a CPU these are the rows that do. Elsewhere counting them would be a wait, so these are all
    rows, and a second result says whether a row says yes.
    """
    column = index.clamp(0, classes - 1)
    says_yes = column == index
    if sync_is_free(index):
        row = says_yes.nonzero().view(-1)
        return torch.add(index.index_select(0, row), row, alpha=classes), None
    row = torch.arange(len(index), device=index.device)
    return torch.add(column, row, alpha=classes), says_yes


def _multiply(values: Tensor, place: Tensor, factor: Factor, elsewhere: Factor = 1.0) -> None:
    """Multiplies the elements at `place` by `factor` and the others by `elsewhere`, in place."""
    elements = values.view(-1)
    if _is_one(elsewhere) and isinstance(factor, float):
        if factor != 1:
            elements.scatter_(0, place, factor, reduce="multiply")
        return
    here = elements.index_select(0, place).mul_(factor)
    if not _is_one(elsewhere):
        values.mul_(elsewhere)
    elements.index_copy_(0, place, here)


def _silence(z: Tensor, ignored: Tensor) -> None:
    """Makes the ignored rows sure negatives, which cost exactly nothing, in place."""
    if sync_is_free(ignored):
        z.index_fill_(0, ignored.nonzero().view(-1), -math.inf)
    else:
        z.masked_fill_(ignored[:, None], -math.inf)


def _is_one(factor: Factor) -> bool:
    return isinstance(factor, float) and factor == 1


def _like(x: Tensor, factor: Factor) -> Tensor:
    """`factor` as a tensor of the dtype of `x`."""
    return factor if isinstance(factor, Tensor) else x.new_full((), factor)


def _of_share(
    negative: Elementwise,
    with_slope: WithSlope | None,
    soft: Callable[[Tensor, Tensor], Tensor] | None,
    label_smoothing: float,
    yes: Factor,
    no: Factor,
) -> Formula:
    """The formula for a share of "yes" of each class (N, C), or for class indices (N,)."""

    def share_of(x: Tensor, target: Tensor) -> Tensor:
        """The share, smoothed; of indices it is made here, so that only a block is dense."""
        if target.ndim < x.ndim:
            column = target.clamp(0, x.shape[-1] - 1)
            says_yes = (column == target).to(x.dtype)
            target = torch.zeros_like(x).scatter(-1, column[..., None], says_yes[..., None])
        return target.lerp(_like(x, 0.5), label_smoothing) if label_smoothing else target

    def value(x: Tensor, target: Tensor) -> Tensor:
        share = share_of(x, target)
        if soft is not None:
            return yes * soft(x, share)
        return yes * share * negative(-x) + no * (1 - share) * negative(x)

    if with_slope is None or soft is not None:
        return Formula(value)

    def fused(x: Tensor, gradient: Tensor | None, target: Tensor) -> Tensor:
        share = share_of(x, target)
        yes_slope = None if gradient is None else torch.empty_like(gradient)
        yes_loss = with_slope(-x, yes_slope)
        loss = with_slope(x, gradient)
        for_yes, for_no = yes * share, no * (1 - share)
        if gradient is not None and yes_slope is not None:
            gradient.mul_(for_no).addcmul_(yes_slope, for_yes, value=-1)
        return loss.mul_(for_no).addcmul_(yes_loss, for_yes)

    return Formula(value, fused, in_place=True)
