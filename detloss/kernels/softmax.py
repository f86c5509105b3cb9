"""Softmax classification losses: the classes share one probability, one value a row.

Each of them is ``sum_c q_c term_c(x)``: a share q over the classes, and what a class would cost if
it were the true one. So a technique is one function, `term(x)`, (..., C) -> (..., C).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from detloss.kernels.dispatch import run
from detloss.kernels.elementary import exponential_, exponential_backward
from detloss.kernels.formula import Formula, GradientOf
from detloss.kernels.reduction import Reduction, check_reduction, check_weight, only_counted
from detloss.kernels.targets import (
    class_indices,
    dense_target,
    is_index_target,
    per_class_values,
)
from detloss.options import check_fraction

VANISHING = 1e-30
"""A probability below it is on its way to 0."""

OfClass = Callable[[Tensor, Callable[[], Tensor]], tuple[Tensor, Tensor | None]]


def softmax_loss(
    term: Callable[[Tensor], Tensor],
    logits: Tensor,
    target: Tensor,
    *,
    of_class: OfClass | None = None,
    offset: Tensor | None = None,
    label_smoothing: float = 0.0,
    alpha: Sequence[float] | Tensor | None = None,
    class_weight: Sequence[float] | Tensor | None,
    background_index: int,
    weight: Tensor | None,
    ignore_index: int,
    reduction: Reduction,
) -> Tensor:
    """``sum_c alpha_c w_c q_c term_c(x)``, weighted and reduced.

    Args:
        term: The cost of each class, were it the true one.
        logits: (..., K), one column being the background where there is one.
        target: Class indices (...,), see `class_columns`; or probabilities (..., K).
        of_class: ``(ln p, 1 - p) -> (cost, gradient)`` of a class alone, elementwise: its cost, and
            d cost / d ln p; None for -1. It asks for ``1 - p``, exact where p rounds to 1, by
            calling it. Without `of_class`, autograd.
        offset: (K,) constants that are added to the logits.
        label_smoothing: e in [0, 1]: ``q = (1 - e) target + e mean(target)``; the mean is 1 / K
            for a row that sums to 1.
        alpha: (K,) factors, one a column.
        class_weight: (K,) factors, one a column; a mean over class indices divides by their sum,
            as PyTorch's `cross_entropy` does.
        background_index: The background's column.
        weight: (...,) factors.
        ignore_index: The class index of rows to leave out.
        reduction: "none" -> (...,), "sum", or "mean" over the rows not ignored.
    """
    by_index = is_index_target(logits, target)
    check_reduction(reduction)
    check_fraction("label_smoothing", label_smoothing)
    if weight is not None:
        check_weight(weight, logits.shape, elementwise=False)
    classes = logits.shape[-1]
    check_background(background_index, classes)
    scale = None if class_weight is None else per_class_values("class_weight", class_weight, logits)
    factor = scale
    if alpha is not None:
        values = per_class_values("alpha", alpha, logits)
        factor = values if scale is None else scale * values

    count: Tensor | float = logits.shape[:-1].numel()
    if by_index:
        target = class_indices(target, classes - 1, ignore_index, weight)
        counted = target != ignore_index
        target = class_columns(torch.where(counted, target, 0), classes, background_index)
        if reduction == "mean":
            count = counted.sum() if scale is None else torch.where(counted, scale[target], 0).sum()
        weight = only_counted(weight, counted)
    else:
        target = dense_target(logits, target)
    make = _of_true_column if by_index and not label_smoothing else _of_share
    formula = make(_Technique(term, of_class, factor, label_smoothing))
    return run(
        formula if offset is None else _with_offset(formula, offset),
        logits,
        target,
        weight=weight,
        count=count,
        reduction=reduction,
    )


class _Technique(NamedTuple):
    """What `softmax_loss` is given of a loss; `factor` (K,) weighs the columns, None for ones."""

    term: Callable[[Tensor], Tensor]
    of_class: OfClass | None
    factor: Tensor | None
    label_smoothing: float

    def costs(self, x: Tensor) -> Tensor:
        """(..., K) what each class would cost."""
        return self.term(x) if self.factor is None else self.factor * self.term(x)


def _of_true_column(technique: _Technique) -> Formula:
    """The formula for the true column of each row, (N,)."""
    of_class, factor = technique.of_class, technique.factor

    def value(x: Tensor, true: Tensor) -> Tensor:
        return technique.costs(x).gather(-1, true[..., None])[..., 0]

    if of_class is None:
        return Formula(value)

    def fused(x: Tensor, gradient: Tensor | None, true: Tensor) -> Tensor:
        """The cost c of the true class, and its gradient ``(onehot - p) dc / d ln p``."""
        column = true[:, None]
        log_p, rest = _of_true(x, column, gradient)
        loss, by_log_p = of_class(log_p, lambda: rest)
        if factor is not None:
            loss = loss * factor[column]
            by_log_p = -factor[column] if by_log_p is None else by_log_p * factor[column]
        if gradient is not None:
            gradient.scatter_(-1, column, -rest)  # now p - onehot
            if by_log_p is not None:
                gradient.mul_(-by_log_p)
        return loss[:, 0]

    def at_once(x: Tensor, with_gradient: bool, true: Tensor) -> tuple[Tensor, GradientOf]:
        column = true[:, None]
        all_log_p = x.log_softmax(-1)
        log_p = all_log_p.gather(-1, column)
        others: list[Tensor] = []  # the other p, if they are asked for

        def rest() -> Tensor:
            others.append(all_log_p.exp())
            return _take_out(others[0], column)

        loss, by_log_p = of_class(log_p, rest)
        if factor is not None:
            loss = loss * factor[column]

        def gradient_of(upstream: Tensor) -> Tensor:
            if factor is not None:
                upstream = upstream * factor[column]
            if by_log_p is None:
                gradient = exponential_backward(all_log_p, upstream)
                of_others = gradient.scatter_(-1, column, 0).sum(-1, keepdim=True)
            else:
                gradient = others[0].mul_(-by_log_p * upstream)
                of_others = gradient.sum(-1, keepdim=True)
            return gradient.scatter_(-1, column, -of_others)  # a row adds up to 0

        return loss[:, 0], gradient_of

    return Formula(value, fused, large_blocks=True, at_once=at_once)


def _of_share(technique: _Technique) -> Formula:
    """The formula for a share q of each class (N, K), or for true columns (N,) to be smoothed."""
    of_class, factor, label_smoothing = (
        technique.of_class,
        technique.factor,
        technique.label_smoothing,
    )

    def smooth(share: Tensor) -> Tensor:
        if not label_smoothing:
            return share
        return share.lerp(share.mean(-1, keepdim=True), label_smoothing)

    def value(x: Tensor, true: Tensor) -> Tensor:
        costs = technique.costs(x)
        if true.ndim == x.ndim:
            return (smooth(true) * costs).sum(-1)
        loss = costs.gather(-1, true[..., None])[..., 0]
        return torch.lerp(loss, costs.mean(-1), label_smoothing)

    if of_class is None:
        return Formula(value)

    def fused(x: Tensor, gradient: Tensor | None, true: Tensor) -> Tensor:
        """``sum_c q_c cost_c``, and its gradient ``q g - p sum_c q_c g_c``, g = d cost / d ln p."""
        p = torch.log_softmax(x, -1, out=gradient)
        by_index = true.ndim < x.ndim
        share = torch.zeros_like(x).scatter_(-1, true[:, None], 1) if by_index else true
        share = smooth(share)
        if factor is not None:
            share = share * factor
        cost, by_log_p = of_class(p, lambda: _rest(p))
        loss = cost.mul_(share).sum(-1)
        if gradient is not None:
            weighted = -share if by_log_p is None else by_log_p.mul_(share)
            exponential_(p).mul_(-weighted.sum(-1, keepdim=True)).add_(weighted)
        return loss

    return Formula(value, fused)


def _with_offset(formula: Formula, offset: Tensor) -> Formula:
    """The same of logits to which `offset` (K,) is added.

    The largest logit is taken off first: the last bit of large logits may be coarser than the
    offset.
    """
    fused, at_once = formula.fused, formula.at_once

    def shifted(x: Tensor) -> Tensor:
        return x - x.detach().amax(-1, keepdim=True) + offset

    def value(x: Tensor, true: Tensor) -> Tensor:
        return formula.value(shifted(x), true)

    if fused is None:
        return Formula(value)

    def shifted_fused(x: Tensor, gradient: Tensor | None, true: Tensor) -> Tensor:
        return fused(x.sub_(x.amax(-1, keepdim=True)).add_(offset), gradient, true)

    def shifted_at_once(x: Tensor, with_gradient: bool, true: Tensor) -> tuple[Tensor, GradientOf]:
        assert at_once is not None
        return at_once(shifted(x), with_gradient, true)

    return Formula(
        value, shifted_fused, in_place=True, at_once=None if at_once is None else shifted_at_once
    )


def _of_true(x: Tensor, column: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
    """``ln p`` and ``1 - p`` of the true column of each row, (N, 1); the other ``p`` are written
    over `out`.

    ``-ln p = ln(1 + (1 - p) / p)`` is exact without the logarithm of the softmax, unless some p
    is so small that only its logarithm tells how small.
    """
    all_p = torch.softmax(x, -1, out=out)
    p = all_p.gather(-1, column)
    if p.numel() and p.amin().item() > VANISHING:
        rest = _take_out(all_p, column)
        return (rest / p).log1p_().neg_(), rest
    all_log_p = torch.log_softmax(x, -1, out=out)
    log_p = all_log_p.gather(-1, column)
    return log_p, _take_out(exponential_(all_log_p), column)


def _take_out(p: Tensor, column: Tensor) -> Tensor:
    """Makes that column of each row 0 and returns the sum of the others, (N, 1)."""
    nothing = p.new_zeros(()).expand_as(column)  # a number to scatter is slower
    return p.scatter_(-1, column, nothing).sum(-1, keepdim=True)


def _rest(log_p: Tensor) -> Tensor:
    """``1 - p`` of each column; of the largest, which can come near 1, as the sum of the others."""
    largest = log_p.argmax(-1, keepdim=True)
    others = log_p.exp().scatter_(-1, largest, 0).sum(-1, keepdim=True)
    return log_p.expm1().neg_().scatter_(-1, largest, others)


def class_columns(target: Tensor, columns: int, background_index: int) -> Tensor:
    """The column of each class index: 0..K-2 are the foreground classes, K-1 the background.

    With the background in the last column, -1, an index is its own column. Otherwise the
    foreground classes fill the other columns in order.

    Example:
        >>> class_columns(torch.tensor([0, 1, 2]), columns=3, background_index=0)
        tensor([1, 2, 0])
    """
    background = background_index % columns
    if background == columns - 1:
        return target
    foreground = target + (target >= background)
    return torch.where(target == columns - 1, background, foreground)


def check_background(background_index: int, columns: int) -> None:
    """Raises ValueError unless `background_index` is a column, counted from either end."""
    if not -columns <= background_index < columns:
        raise ValueError(
            f"background_index must be in [{-columns}, {columns}), got {background_index}"
        )
