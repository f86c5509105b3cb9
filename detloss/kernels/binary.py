"""Elementwise classification losses: every class is a yes-or-no question of its own.

The loss of a "yes" with logit x is the loss of a "no" with logit -x, for cross-entropy, focal,
hinge and squared error alike. So a technique is one function, `negative(z)`: the loss of a
negative whose logit is z; or two, where a "yes", or a label q between 0 and 1, has a loss of its
own. Everything else is here: signs, class indices, qualities, soft and smoothed labels, weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from detloss.kernels.dispatch import run
from detloss.kernels.formula import Formula, GradientOf
from detloss.kernels.reduction import Reduction, check_reduction, check_weight, only_counted
from detloss.kernels.targets import (
    checked_quality,
    class_indices,
    dense_target,
    is_index_target,
    per_class_values,
)
from detloss.options import check_fraction

Elementwise = Callable[[Tensor], Tensor]
WithDerivative = Callable[[Tensor, Tensor | None], Tensor]
Backward = Callable[[Tensor, Tensor], Tensor]
OfLabel = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Factor = Tensor | float


def binary_loss(
    negative: Elementwise,
    logits: Tensor,
    target: Tensor,
    *,
    quality: Tensor | None = None,
    with_derivative: WithDerivative | None = None,
    backward: Backward | None = None,
    positive: tuple[Elementwise, WithDerivative] | None = None,
    of_label: OfLabel | None = None,
    positives_alone: bool = False,
    dense: Callable[[Tensor, Tensor], Tensor] | None = None,
    label_smoothing: float = 0.0,
    alpha: float | Sequence[float] | Tensor | None = None,
    no_weight: float = 1.0,
    class_weight: Sequence[float] | Tensor | None,
    weight: Tensor | None,
    ignore_index: int,
    reduction: Reduction,
) -> Tensor:
    """``alpha y negative(-x) + (1 - alpha) (1 - y) negative(x)``, weighted and reduced.

    Args:
        negative: The loss of a negative with logit z, elementwise, plain and differentiable.
        logits: (..., C).
        target: Class indices (...,): 0..C-1 says yes to that class, C to none, `ignore_index`
            ignores the row. Or the share y of "yes", (..., C) in [0, 1].
        quality: (...,) beside class indices: the label that the row's class gets instead of 1. It
            is not read where the row has no class.
        with_derivative: The same with its derivative, ``(z, derivative) -> loss``, in few passes.
            It writes over `derivative` unless that is None, and may overwrite z. At z = -inf both
            are 0. Without it, autograd.
        backward: ``(z, factor) -> factor * derivative``, where PyTorch has one operator for that.
        positive: What `negative` and `with_derivative` are for a positive with logit -z, where they
            are not the same.
        of_label: Replaces the formula above for a label y: ``(x, y) -> (loss, derivative by x)``,
            elementwise, plain and differentiable. Without a quality it is not asked for the labels
            0 and 1, which are `negative` of x and of -x.
        positives_alone: Whether `of_label` is the loss of a positive: it is asked for the label 1,
            too, and a label of 0 in a dense target is that of a negative.
        dense: Replaces the loss of `of_label` where the target is dense, as ``dense(x, y)``.
        label_smoothing: e in [0, 1]: a label y becomes ``y (1 - e) + e / 2``.
        alpha: Weight of "yes" against 1 - alpha of "no": a float, (C,) values, or None for 1 and 1.
        no_weight: Factor of "no" alone, beside an alpha of None.
        class_weight: (C,) factors.
        weight: (...,) or (..., C) factors.
        ignore_index: The class index of rows to leave out.
        reduction: "none" -> (..., C), "sum", or "mean" over the elements not ignored.
    """
    by_index = is_index_target(logits, target)
    check_reduction(reduction)
    check_fraction("label_smoothing", label_smoothing)
    if weight is not None:
        check_weight(weight, logits.shape, elementwise=True)
    if by_index:
        target = class_indices(target, logits.shape[-1], ignore_index, weight)
    labels: tuple[Tensor, ...] = (target,)
    if quality is not None:
        labels = (target, checked_quality(logits, target, quality))

    yes, no, scale = _weights_of_answers(alpha, no_weight, class_weight, logits)
    of_yes = positive or (negative, with_derivative)
    technique = _Technique(
        negative, with_derivative, backward, *of_yes, of_label, positives_alone, dense, yes, no
    )
    count: Tensor | float = logits.numel()
    formula = _of_share(technique, label_smoothing)
    if by_index:
        if reduction == "mean":
            count = (target != ignore_index).sum() * logits.shape[-1]
        if label_smoothing:
            weight = only_counted(weight, target != ignore_index)
        else:
            by_sign = quality is None and positive is None and not positives_alone
            formula = (_of_index if by_sign else _of_index_and_label)(technique, ignore_index)
    else:
        labels = (dense_target(logits, target),)
    return run(
        formula, logits, *labels, weight=weight, count=count, reduction=reduction, scale=scale
    )


def _weights_of_answers(
    alpha: float | Sequence[float] | Tensor | None,
    no_weight: float,
    class_weight: Sequence[float] | Tensor | None,
    logits: Tensor,
) -> tuple[Factor, Factor, float]:
    """The weights of "yes" and of "no", numbers or (C,), and a factor of both."""
    yes: Factor = 1.0
    no: Factor = no_weight
    if isinstance(alpha, (int, float)):
        check_fraction("alpha", alpha)
        yes, no = float(alpha), 1.0 - alpha
    elif alpha is not None:
        yes = per_class_values("alpha", alpha, logits, highest=1)
        no = 1 - yes
    if class_weight is not None:
        factor = per_class_values("class_weight", class_weight, logits)
        yes, no = yes * factor, no * factor
    # the factor of most elements is multiplied in by the engine, unless the others' would overflow
    if isinstance(no, float) and isinstance(yes, float) and no > 0 and yes <= 3 * no:
        return yes / no, 1.0, no
    return yes, no, 1.0


class _Technique(NamedTuple):
    """What `binary_loss` is given of a loss, and the weights of "yes" and "no", (C,) or numbers."""

    negative: Elementwise
    with_derivative: WithDerivative | None
    backward: Backward | None
    positive: Elementwise
    positive_with_derivative: WithDerivative | None
    of_label: OfLabel | None
    positives_alone: bool
    dense: Callable[[Tensor, Tensor], Tensor] | None
    yes: Factor
    no: Factor

    def negative_at_once(self, z: Tensor, with_gradient: bool) -> tuple[Tensor, GradientOf]:
        """The loss of negatives with logits z, which it may use up, and its derivative by them."""
        if self.backward is not None:
            return self.negative(z), partial(self.backward, z)
        assert self.with_derivative is not None
        derivative = torch.empty_like(z) if with_gradient else None
        loss = self.with_derivative(z, derivative)
        return loss, z.mul_ if derivative is None else derivative.mul_

    def label_loss(self, x: Tensor, q: Tensor | None, yes: Factor, no: Factor) -> Tensor:
        """The loss of logits x with labels q, or all 1, elementwise; plain and differentiable."""
        if self.of_label is not None:
            return yes * self.of_label(x, x.new_ones(()) if q is None else q)[0]
        if q is None:
            return yes * self.positive(-x)
        return yes * q * self.positive(-x) + no * (1 - q) * self.negative(x)

    def label_loss_with_gradient(
        self, x: Tensor, q: Tensor | None, column: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same with its gradient, for labels (P,) of columns (P,): they are few."""
        yes, no = (f[column] if isinstance(f, Tensor) else f for f in (self.yes, self.no))
        if self.of_label is not None:
            loss, gradient = self.of_label(x, x.new_ones(()) if q is None else q)
            return yes * loss, yes * gradient
        assert self.with_derivative is not None
        assert self.positive_with_derivative is not None
        if q is None:
            of_yes, yes_derivative = _both(self.positive_with_derivative, -x)
            return yes * of_yes, -yes * yes_derivative
        if self.positive_with_derivative is self.with_derivative:  # in half as many launches
            of_both, derivatives = _both(self.with_derivative, torch.cat([x, -x]))
            of_no, of_yes = of_both.chunk(2)
            no_derivative, yes_derivative = derivatives.chunk(2)
        else:
            of_yes, yes_derivative = _both(self.positive_with_derivative, -x)
            of_no, no_derivative = _both(self.with_derivative, x)
        for_yes, for_no = yes * q, no * (1 - q)
        gradient = for_no * no_derivative - for_yes * yes_derivative
        return for_yes * of_yes + for_no * of_no, gradient


def _both(with_derivative: WithDerivative, z: Tensor) -> tuple[Tensor, Tensor]:
    """The loss at z, which is used up, and its derivative."""
    derivative = torch.empty_like(z)
    return with_derivative(z, derivative), derivative


def _of_index(technique: _Technique, ignore_index: int) -> Formula:
    """The formula for class indices (N,): of each row at most one column says yes."""
    negative, with_derivative, *_, yes, no = technique

    def value(x: Tensor, index: Tensor) -> Tensor:
        is_yes = index[..., None] == torch.arange(x.shape[-1], device=x.device)
        ignored = index[..., None] == ignore_index
        loss = negative(torch.where(is_yes, -x, torch.where(ignored, 0, x)))
        if not (_is_one(yes) and _is_one(no)):
            loss = loss * torch.where(is_yes, _like(x, yes), _like(x, no))
        return torch.where(ignored, 0, loss)

    if with_derivative is None:
        return Formula(value)

    def fused(z: Tensor, gradient: Tensor | None, index: Tensor) -> Tensor:
        _, place = _places_of(index, z.shape[-1])
        factor = yes[place % z.shape[-1]] if isinstance(yes, Tensor) else yes
        _multiply(z, place, -1.0)
        _make_sure_negatives(z, index == ignore_index)
        loss = with_derivative(z, gradient)
        _multiply(loss, place, factor, elsewhere=no)
        if gradient is not None:
            _multiply(gradient, place, -factor, elsewhere=no)
        return loss

    def at_once(x: Tensor, with_gradient: bool, index: Tensor) -> tuple[Tensor, GradientOf]:
        z, column, says_yes = _as_negatives(x, index, ignore_index)
        by_x = z.new_ones(column.shape).masked_fill_(says_yes, -1)
        z.scatter_reduce_(-1, column, by_x, "prod")
        loss, derivative_of = technique.negative_at_once(z, with_gradient)
        if not (_is_one(yes) and _is_one(no)):
            factor = _of_answer(column, says_yes, yes, no, by_x)
            _multiply_columns(loss, column, factor, elsewhere=no)
            by_x = by_x * factor

        def gradient_of(factor: Tensor) -> Tensor:
            gradient = derivative_of(factor)
            _multiply_columns(gradient, column, by_x, elsewhere=no)
            return gradient

        return loss, gradient_of

    return Formula(value, fused, in_place=True, at_once=at_once)


def _of_index_and_label(technique: _Technique, ignore_index: int) -> Formula:
    """The formula for class indices (N,) and their labels (N,), or all 1: the other columns say no.

    Everything is computed as a "no" first. Then the few elements that have a label get its loss.
    """
    negative, with_derivative, *_, yes, no = technique

    def value(x: Tensor, index: Tensor, quality: Tensor | None = None) -> Tensor:
        ignored = index[..., None] == ignore_index
        has_label = index[..., None] == torch.arange(x.shape[-1], device=x.device)
        label = None if quality is None else torch.where(has_label, quality[..., None], 0)
        x = torch.where(ignored, 0, x)
        with_label, without = torch.where(has_label, x, 0), torch.where(has_label, 0, x)
        labelled = technique.label_loss(with_label, label, _like(x, yes), _like(x, no))
        loss = torch.where(has_label, labelled, _like(x, no) * negative(without))
        return torch.where(ignored, 0, loss)

    if with_derivative is None:
        return Formula(value)

    def fused(
        z: Tensor, gradient: Tensor | None, index: Tensor, quality: Tensor | None = None
    ) -> Tensor:
        row, place = _places_of(index, z.shape[-1], ignore_index)
        labelled, labelled_gradient = technique.label_loss_with_gradient(
            z.view(-1).index_select(0, place),
            None if quality is None else quality.index_select(0, row),
            place % z.shape[-1],
        )
        _make_sure_negatives(z, index == ignore_index)
        loss = with_derivative(z, gradient)
        for values, at_labels in ((loss, labelled), (gradient, labelled_gradient)):
            if values is not None:
                if not _is_one(no):
                    values.mul_(no)
                values.view(-1).index_copy_(0, place, at_labels)
        return loss

    def at_once(
        x: Tensor, with_gradient: bool, index: Tensor, quality: Tensor | None = None
    ) -> tuple[Tensor, GradientOf]:
        z, column, has_label = _as_negatives(x, index, ignore_index)
        labelled, labelled_gradient = technique.label_loss_with_gradient(
            z.gather(-1, column)[:, 0], quality, column[:, 0]
        )
        loss, derivative_of = technique.negative_at_once(z, with_gradient)

        def with_labels(values: Tensor, at_labels: Tensor) -> Tensor:
            if not _is_one(no):
                values.mul_(no)
            as_no = values.gather(-1, column)
            return values.scatter_(-1, column, torch.where(has_label, at_labels, as_no))

        def gradient_of(factor: Tensor) -> Tensor:
            at_column = factor.gather(-1, column) if factor.shape == z.shape else factor
            return with_labels(derivative_of(factor), labelled_gradient[:, None] * at_column)

        return with_labels(loss, labelled[:, None]), gradient_of

    return Formula(value, fused, in_place=True, at_once=at_once)


def _places_of(
    index: Tensor, classes: int, ignore_index: int | None = None
) -> tuple[Tensor, Tensor]:
    """Which rows (P,) say yes, and where among the elements (N * C,) they do."""
    says_yes = index.clamp(0, classes - 1) == index
    if ignore_index is not None:
        says_yes &= index != ignore_index
    row = says_yes.nonzero().view(-1)
    return row, torch.add(index.index_select(0, row), row, alpha=classes)


def _as_negatives(x: Tensor, index: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """A copy of the logits (N, C) in which ignored rows are sure negatives, -inf; a column of each
    row (N, 1); and whether the row says yes to it.
    """
    ignored = (index == ignore_index)[:, None]
    index = index[:, None]
    column = index.clamp(0, x.shape[-1] - 1)
    says_yes = column == index
    if 0 <= ignore_index < x.shape[-1]:
        says_yes &= ~ignored
    return x.masked_fill(ignored, -math.inf), column, says_yes


def _of_answer(column: Tensor, says_yes: Tensor, yes: Factor, no: Factor, like: Tensor) -> Tensor:
    """The factor (N, 1) of the answer to each row's column, in the dtype of `like` (N, 1)."""
    if isinstance(yes, Tensor) or isinstance(no, Tensor):
        yes, no = (f[column] if isinstance(f, Tensor) else _like(like, f) for f in (yes, no))
        return torch.where(says_yes, yes, no)
    return torch.full_like(like, no).masked_fill_(says_yes, yes)


def _multiply_columns(values: Tensor, column: Tensor, factor: Tensor, elsewhere: Factor) -> None:
    """Multiplies a column of each row by `factor` (N, 1), the others by `elsewhere`, in place."""
    if _is_one(elsewhere):
        values.scatter_reduce_(-1, column, factor, "prod")
        return
    here = values.gather(-1, column).mul_(factor)
    values.mul_(elsewhere).scatter_(-1, column, here)


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


def _make_sure_negatives(z: Tensor, ignored: Tensor) -> None:
    """Makes logits (N, C) of ignored rows -inf, in place: as a "no" they cost exactly nothing."""
    z.index_fill_(0, ignored.nonzero().view(-1), -math.inf)


def _is_one(factor: Factor) -> bool:
    return isinstance(factor, float) and factor == 1


def _like(x: Tensor, factor: Factor) -> Tensor:
    """`factor` as a tensor of the dtype of `x`."""
    return factor if isinstance(factor, Tensor) else x.new_full((), factor)


def _of_share(technique: _Technique, label_smoothing: float) -> Formula:
    """The formula for a share of "yes" of each class (N, C), or for class indices (N,)."""
    _, with_derivative, _, _, positive_with_derivative, of_label, _, dense, yes, no = technique

    def share_of(x: Tensor, target: Tensor, quality: Tensor | None) -> Tensor:
        """The share, smoothed; of indices it is made here, so that only a block is dense."""
        if target.ndim < x.ndim:
            column = target.clamp(0, x.shape[-1] - 1)
            label: Tensor | float = 1.0 if quality is None else quality
            label = torch.where(column == target, _like(x, label), 0)
            target = torch.zeros_like(x).scatter(-1, column[..., None], label[..., None])
        return target.lerp(_like(x, 0.5), label_smoothing) if label_smoothing else target

    def value(x: Tensor, target: Tensor, quality: Tensor | None = None) -> Tensor:
        share = share_of(x, target, quality)
        if dense is not None:
            return yes * dense(x, share)
        loss = technique.label_loss(x, share, yes, no)
        if technique.positives_alone:
            loss = torch.where(share > 0, loss, no * technique.negative(x))
        return loss

    by_autograd = dense is not None or technique.positives_alone
    if with_derivative is None or positive_with_derivative is None or by_autograd:
        return Formula(value)

    def of_any_label(
        x: Tensor, gradient: Tensor | None, target: Tensor, quality: Tensor | None = None
    ) -> Tensor:
        assert of_label is not None
        loss, derivative = of_label(x, share_of(x, target, quality))
        if gradient is not None:
            torch.mul(derivative, yes, out=gradient)
        return loss if _is_one(yes) else loss.mul_(yes)

    if of_label is not None:
        return Formula(value, of_any_label)

    def fused(
        x: Tensor, gradient: Tensor | None, target: Tensor, quality: Tensor | None = None
    ) -> Tensor:
        share = share_of(x, target, quality)
        yes_derivative = None if gradient is None else torch.empty_like(gradient)
        yes_loss = positive_with_derivative(-x, yes_derivative)
        loss = with_derivative(x, gradient)
        for_yes = share if _is_one(yes) else yes * share
        for_no = 1 - share if _is_one(no) else no * (1 - share)
        if gradient is not None and yes_derivative is not None:
            gradient.mul_(for_no).addcmul_(yes_derivative, for_yes, value=-1)
        return loss.mul_(for_no).addcmul_(yes_loss, for_yes)

    return Formula(value, fused, in_place=True)
