"""How a formula is run: the one place that knows about speed.

On a CPU the cost of a loss is fresh memory, not arithmetic. So eager mode computes value and
gradient in one pass, over blocks of rows that fit the cache, and backward only scales the gradient
that is already there. Under ``torch.compile``, inside ``torch.func`` transforms and where something
else than the predictions wants a gradient, the plain formula runs on the whole tensor and autograd
does the rest.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detloss.boxes.checking import HALF_TYPES, widen
from detloss.kernels.reduction import Reduction, reduce

BLOCK = 262_144
"""Predictions in a block: with its temporaries about the size of a core's second-level cache."""


_PLAIN = ContextVar("plain_formulas", default=False)


@contextmanager
def plain_formulas() -> Iterator[None]:
    """Within, every loss runs by its plain formula and autograd: what tests and benchmarks hold
    the closed forms against.
    """
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


@dataclass(frozen=True)
class Formula:
    """A loss of rows: what it is, and how its value and gradient are had in one pass.

    Attributes:
        value: ``value(pred, *rows) -> loss``, (N, K) -> (N,) or (N, K): plain, differentiable,
            finite where `pred` is. The one source of truth.
        fused: ``fused(pred, *rows) -> (loss, gradient)``, gradient (N, K) that of each row's or
            element's own loss; it must not change its arguments. None: autograd in each block.
    """

    value: Callable[..., Tensor]
    fused: Callable[..., tuple[Tensor, Tensor]] | None = None

    def value_and_gradient(self, pred: Tensor, *rows: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and its gradient for `pred`."""
        if self.fused is not None:
            return self.fused(pred, *rows)
        with torch.enable_grad():
            pred = pred.detach().requires_grad_()
            loss = self.value(pred, *rows)
            (gradient,) = torch.autograd.grad(loss.sum(), pred)
        return loss.detach(), gradient


def run(
    formula: Formula,
    pred: Tensor,
    *rows: Tensor,
    weight: Tensor | None,
    count: Tensor | float,
    reduction: Reduction,
) -> Tensor:
    """The weighted, reduced loss of `formula`.

    Args:
        formula: What to compute.
        pred: (..., K) predictions; float16 and bfloat16 are computed in float32.
        *rows: What else the formula takes, each (...,) or (..., K).
        weight: (...,) or (..., K) factors of the loss, or booleans: what counts. Where it is 0
            both value and gradient are exactly 0, whatever `pred` and `rows` hold there.
        count: What a mean divides by.
        reduction: "none", "sum" or "mean".

    Returns:
        The loss: the formula's shape, or a scalar.
    """
    shape = pred.shape
    others = (*rows, weight) if weight is not None else rows
    if _whole(others):
        loss = _plain(formula, pred, rows, weight)
        return reduce(loss, count, reduction)
    flat = [tensor.reshape(-1, *tensor.shape[len(shape) - 1 :]) for tensor in (pred, *others)]
    pred, rows = flat[0], tuple(flat[1 : len(rows) + 1])
    weight = flat[-1] if weight is not None else None
    if torch.is_grad_enabled() and pred.requires_grad:
        loss = _Fused.apply(pred, formula, weight, reduction != "none", *rows)
    else:
        loss, _ = _blocks(formula, pred, rows, weight, reduction != "none", gradient=False)
    if reduction == "none":
        return loss.reshape(shape[: len(shape) - 2 + loss.ndim])
    return loss if reduction == "sum" else reduce(loss, count, "mean")


def _whole(others: tuple[Tensor, ...]) -> bool:
    """Whether autograd, a transform or a compiler has to see the formula itself."""
    return (
        torch.compiler.is_compiling()
        or _PLAIN.get()
        or torch._C._are_functorch_transforms_active()
        or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in others))
    )


def _plain(
    formula: Formula, pred: Tensor, rows: tuple[Tensor, ...], weight: Tensor | None
) -> Tensor:
    """The weighted loss by the plain formula."""
    pred = _Widen.apply(pred) if pred.dtype in HALF_TYPES else pred
    if weight is None:
        return formula.value(pred, *rows)
    silent = weight == 0
    silent_rows = silent if weight.ndim < pred.ndim else silent.all(-1)
    pred = torch.where(silent if weight.ndim == pred.ndim else silent[..., None], 0, pred)
    loss = formula.value(pred, *(_silence(row, silent_rows) for row in rows))
    weight = (weight if weight.ndim == loss.ndim else weight[..., None]).to(loss.dtype)
    return torch.where(weight == 0, 0, loss * weight)


def _silence(row: Tensor, silent: Tensor) -> Tensor:
    """`row` with zeros where a row is silent, so that a NaN in it reaches nothing."""
    return torch.where(silent if row.ndim == silent.ndim else silent[..., None], 0, row)


def _blocks(
    formula: Formula,
    pred: Tensor,
    rows: tuple[Tensor, ...],
    weight: Tensor | None,
    total: bool,
    *,
    gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """The weighted loss, summed if `total`, and if asked for its gradient, block by block."""
    count, width = pred.shape
    step = max(BLOCK // max(width, 1), 1) if pred.device.type == "cpu" else max(count, 1)
    if count <= step:
        loss, slope = _block(formula, pred, rows, weight, gradient)
        if slope is not None:
            slope = _narrow(slope, pred.dtype)
        return (loss.sum() if total else loss), slope

    losses = []
    slopes = torch.empty_like(pred, memory_format=torch.contiguous_format) if gradient else None
    for first in range(0, count, step):
        part = slice(first, first + step)
        loss, slope = _block(
            formula,
            pred[part],
            tuple(row[part] for row in rows),
            None if weight is None else weight[part],
            gradient,
        )
        losses.append(loss.sum() if total else loss)
        if slopes is not None and slope is not None:
            slopes[part] = _narrow(slope, pred.dtype)
    return (torch.stack(losses).sum() if total else torch.cat(losses)), slopes


@torch.no_grad()
def _block(
    formula: Formula,
    pred: Tensor,
    rows: tuple[Tensor, ...],
    weight: Tensor | None,
    gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """The weighted loss of one block, and if asked for its gradient; never silenced by a NaN."""
    pred = widen(pred)
    if gradient:
        loss, slope = formula.value_and_gradient(pred, *rows)
    else:
        loss, slope = formula.value(pred, *rows), None
    if weight is not None:
        _weigh(loss, weight)
        if slope is not None:
            _weigh(slope, weight)
    return loss, slope


def _weigh(values: Tensor, weight: Tensor) -> None:
    """Multiplies `values` in place by one weight a row or an element; times 0 is exactly 0."""
    silent = ~weight if weight.dtype == torch.bool else weight == 0
    by_row = weight.ndim < values.ndim
    if weight.dtype != torch.bool:
        values.mul_((weight[:, None] if by_row else weight).to(values.dtype))
    if silent.ndim == 1 and silent.device.type == "cpu":  # looking for rows is cheaper than filling
        values.index_fill_(0, silent.nonzero()[:, 0], 0)
    else:
        values.masked_fill_(silent[:, None] if by_row else silent, 0)


class _Fused(torch.autograd.Function):
    """A loss whose gradient is made in forward; backward scales it.

    The gradient is given away in the first backward. A second one, and one that is itself
    differentiated, computes what it needs again from the predictions.
    """

    @staticmethod
    def forward(
        ctx: Any,
        pred: Tensor,
        formula: Formula,
        weight: Tensor | None,
        total: bool,
        *rows: Tensor,
    ) -> Tensor:
        loss, ctx.gradient = _blocks(formula, pred, rows, weight, total, gradient=True)
        ctx.formula, ctx.total = formula, total
        ctx.save_for_backward(pred, weight, *rows)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradient, ctx.gradient = ctx.gradient, None
        pred, weight, *rows = ctx.saved_tensors
        nothing = (None,) * (3 + len(rows))
        if torch.is_grad_enabled():  # create_graph: let autograd see the formula
            loss = _plain(ctx.formula, pred, tuple(rows), weight)
            loss = loss.sum() if ctx.total else loss
            return *torch.autograd.grad(loss, pred, grad, create_graph=True), *nothing
        if gradient is None:
            _, gradient = _blocks(ctx.formula, pred, tuple(rows), weight, ctx.total, gradient=True)
        if ctx.total and grad.device.type == "cpu" and grad.item() == 1:
            return gradient, *nothing
        grad = grad if grad.ndim in (0, 2) else grad[:, None]
        return gradient.mul_(grad), *nothing


class _Widen(torch.autograd.Function):
    """float16 and bfloat16 as float32."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.dtype = values.dtype
        return values.float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _narrow(gradient, ctx.dtype)


def _narrow(gradient: Tensor, dtype: torch.dtype) -> Tensor:
    """`gradient` in the dtype of the predictions; what is too large for it becomes its largest."""
    if dtype == torch.float16:
        largest = torch.finfo(dtype).max
        gradient = gradient.clamp(-largest, largest)
    return gradient.to(dtype)
