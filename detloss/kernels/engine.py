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
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from detloss.kernels.memory import keep_freed_memory
from detloss.kernels.reduction import Reduction, at_least_one, reduce
from detloss.tensors import HALF_TYPES, sync_is_free, wide_type, widen

BLOCK = 262_144
"""Predictions in a block: with its temporaries about the size of a core's second-level cache."""

LEAN_BLOCK = 4_194_304
"""The same for a formula without such temporaries. Up to 128 classes it holds the 32,768 rows from
which PyTorch spreads an operator of one value a row over the cores; below, one core has to fetch
what the others have just computed.
"""

Per = Literal["element", "row", "block"]
"""What a loss is wanted of: as the formula gives it, summed over a row, or over everything."""
PER: dict[Reduction, Per] = {"none": "element", "image": "row", "sum": "block", "mean": "block"}
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


class Formula(NamedTuple):
    """A loss of rows: what it is, and how its value and gradient are had in one pass.

    Attributes:
        value: ``value(pred, *rows) -> loss``, (N, K) -> (N,) or (N, K): plain, differentiable,
            finite where `pred` is. The one source of truth.
        fused: ``fused(pred, gradient, *rows) -> loss``: writes the gradient of each row's or
            element's own loss over `gradient` (N, K), contiguous, unless that is None, and changes
            nothing else. Without it, autograd in each block.
        in_place: Whether `fused` may use up `pred`, too, which has to be a contiguous copy then.
        lean: Whether the largest tensor that `fused` needs is `gradient`, and no other comes near:
            then blocks may be much larger.
    """

    value: Callable[..., Tensor]
    fused: Callable[..., Tensor] | None = None
    in_place: bool = False
    lean: bool = False

    def plain(self, pred: Tensor, *rows: Tensor) -> Tensor:
        """`value`, refused where it is not one loss a row or element."""
        loss = self.value(pred, *rows)
        if loss.shape not in (pred.shape[:-1], pred.shape):
            raise ValueError(
                f"the formula must return one loss a row, of shape {tuple(pred.shape[:-1])}, or "
                f"one an element, {tuple(pred.shape)}: the engine weighs and reduces, "
                f"got {tuple(loss.shape)}"
            )
        return loss

    def compute(self, pred: Tensor, gradient: Tensor | None, *rows: Tensor) -> Tensor:
        """The loss; its gradient for `pred` is written over `gradient`, if there is one."""
        pred = widen(pred)
        if self.fused is not None:
            return self.fused(pred, gradient, *rows)
        if gradient is None:
            return self.plain(pred, *rows)
        with torch.enable_grad():
            pred = pred.detach().requires_grad_()
            loss = self.plain(pred, *rows)
            gradient.copy_(torch.autograd.grad(loss.sum(), pred)[0])
        return loss.detach()


def run(
    formula: Formula,
    pred: Tensor,
    *rows: Tensor,
    weight: Tensor | None,
    count: Tensor | float,
    reduction: Reduction,
    scale: Tensor | float = 1.0,
) -> Tensor:
    """The weighted, reduced loss of `formula`.

    Args:
        formula: What to compute.
        pred: (..., K) predictions; float16 and bfloat16 are computed in float32.
        *rows: What else the formula takes, each (...,) or (..., K).
        weight: (...,) or (..., K) factors of the loss, or booleans: what counts. Where it is 0
            both value and gradient are exactly 0, whatever `pred` and `rows` hold there.
        count: What a mean divides by; the mean of nothing is 0.
        reduction: "none", "sum", "mean" or "image".
        scale: A factor of everything.

    Returns:
        The loss: the formula's shape, a scalar, or (B,) for "image".
    """
    if _whole((*rows, weight)):
        return reduce(scale * _plain(formula, pred, rows, weight), count, reduction)
    if reduction == "mean":
        scale = scale / at_least_one(_number(count, wide_type(pred)))
    per = PER[reduction]
    shape = pred.shape
    if len(shape) != 2:
        pred = pred.reshape(-1, shape[-1])
        rows = tuple(_flat(row, shape) for row in rows)
        weight = None if weight is None else _flat(weight, shape)
    if torch.is_grad_enabled() and pred.requires_grad:
        loss: Tensor = _Fused.apply(pred, formula, weight, scale, per, *rows)
    else:
        loss, _ = _blocks(formula, pred, rows, weight, scale, per, gradient=False)
    if loss.ndim:
        loss = loss.reshape(shape[: len(shape) - 2 + loss.ndim])
    return reduce(loss, 1, "image") if per == "row" else loss


def _number(count: Tensor | float, dtype: torch.dtype) -> Any:
    """`count` as a number where reading it waits for nobody, else as a tensor of that dtype."""
    if not isinstance(count, Tensor):
        return count
    return count.item() if sync_is_free(count) else count.to(dtype)


def _flat(row: Tensor, shape: torch.Size) -> Tensor:
    """`row`, beside predictions of that shape, with the leading axes as one."""
    return row.reshape(-1, *row.shape[len(shape) - 1 :])


def _whole(others: tuple[Tensor | None, ...]) -> bool:
    """Whether autograd, a transform or a compiler has to see the formula itself."""
    return (
        torch.compiler.is_compiling()
        or _PLAIN.get()
        or torch._C._are_functorch_transforms_active()
        or (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in others))
    )


def _plain(
    formula: Formula, pred: Tensor, rows: tuple[Tensor, ...], weight: Tensor | None
) -> Tensor:
    """The weighted loss by the plain formula."""
    pred = _Widen.apply(pred) if pred.dtype in HALF_TYPES else pred
    if weight is None:
        return formula.plain(pred, *rows)
    silent = weight == 0
    silent_rows = silent if weight.ndim < pred.ndim else silent.all(-1)
    pred = torch.where(silent if weight.ndim == pred.ndim else silent[..., None], 0, pred)
    loss = formula.plain(pred, *(_silence(row, silent_rows) for row in rows))
    weight = (weight if weight.ndim == loss.ndim else weight[..., None]).to(loss.dtype)
    return torch.where(weight == 0, 0, loss * weight)


def _silence(row: Tensor, silent: Tensor) -> Tensor:
    """`row` with zeros where a row is silent, so that a NaN in it reaches nothing."""
    return torch.where(silent if row.ndim == silent.ndim else silent[..., None], 0, row)


class _Weights:
    """What multiplies the losses of a block: exactly 0 where something is silent.

    Args:
        weight: (N,) or (N, K) factors, or booleans; None for ones.
        scale: A factor of everything.
        dtype: What the loss is computed in.
    """

    def __init__(self, weight: Tensor | None, scale: Tensor | float, dtype: torch.dtype) -> None:
        self.ndim = 0 if weight is None else weight.ndim
        self.silent: Tensor | None = None
        self.silent_rows: Tensor | None = None
        self.factor = scale
        if weight is None:
            return
        if weight.dtype == torch.bool:
            self.silent = ~weight
        else:
            self.silent = weight == 0
            self.factor = weight.to(dtype) * scale
        if not sync_is_free(weight):
            return
        if weight.ndim == 1:  # a few rows
            self.silent_rows = self.silent.nonzero().view(-1)
        elif not self.silent.any():
            self.silent = None

    def apply(self, values: Tensor) -> None:
        """Multiplies `values` of rows or elements in place; times 0 is 0, even for a NaN."""
        by_row = self.ndim < values.ndim
        factor = self.factor
        if isinstance(factor, Tensor) and factor.ndim:
            values.mul_(factor[:, None] if by_row else factor)
        elif isinstance(factor, Tensor) or factor != 1:
            values.mul_(factor)
        if self.silent_rows is not None:
            values.index_fill_(0, self.silent_rows, 0)
        elif self.silent is not None:
            values.masked_fill_(self.silent[:, None] if by_row else self.silent, 0)

    def weigh(self, loss: Tensor, per: Per) -> Tensor:
        """`loss` weighted; it may be used up. What has one factor is summed first."""
        if per == "block" and self.ndim == 0:
            loss = loss.sum()
        elif per != "element" and self.ndim < loss.ndim == 2:
            loss = loss.sum(-1)
        self.apply(loss)
        return loss


def _weights(weight: Tensor | None, scale: Tensor | float, dtype: torch.dtype) -> _Weights | None:
    """None where all factors are 1."""
    plain = weight is None and isinstance(scale, float) and scale == 1
    return None if plain else _Weights(weight, scale, dtype)


def _summed(loss: Tensor, per: Per) -> Tensor:
    """`loss` of elements, rows or a block `per` what is wanted."""
    if per == "block":
        return loss.sum() if loss.ndim else loss
    return loss.sum(-1) if per == "row" and loss.ndim == 2 else loss


class _Room(NamedTuple):
    """Memory of a block's size that all blocks share: each could get other memory of its own.

    Attributes:
        pred: Room for the predictions, for a formula that uses them up.
        gradient: Room for the gradient of a half type, wide.
    """

    pred: Tensor | None
    gradient: Tensor | None


_NO_ROOM = _Room(None, None)


def _first(rows: Tensor, count: int) -> Tensor:
    """The first `count` of `rows`."""
    return rows if len(rows) == count else rows[:count]


def _blocks(
    formula: Formula,
    pred: Tensor,
    rows: tuple[Tensor, ...],
    weight: Tensor | None,
    scale: Tensor | float,
    per: Per,
    *,
    gradient: bool,
    upstream: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The weighted loss `per` what is wanted, and if asked for its gradient, block by block.

    `upstream`, 0-d or like the loss, multiplies the gradient before it is rounded to a half type.
    """
    count, width = pred.shape
    slopes = torch.empty_like(pred, memory_format=torch.contiguous_format) if gradient else None
    narrow = pred.dtype in HALF_TYPES
    dtype = wide_type(pred)
    if pred.is_cpu:
        keep_freed_memory()
    size = BLOCK
    if formula.lean and not narrow:  # without a gradient to write over, a temporary like it
        size = LEAN_BLOCK if gradient else 2 * BLOCK
    blocks = 1
    if count * width > size and sync_is_free(pred):  # all of a size
        blocks = -(-count * width // size)
    step = -(-count // blocks)
    room = _NO_ROOM
    if formula.in_place or narrow:
        room = _Room(
            pred.new_empty(step, width, dtype=dtype) if formula.in_place else None,
            pred.new_empty(step, width, dtype=dtype) if gradient and narrow else None,
        )
    if blocks == 1:
        weights = _weights(weight, scale, dtype)
        loss = _summed(_block(formula, pred, slopes, room, rows, weights, per, upstream), per)
        return (loss.clone() if loss.is_inference() else loss), slopes
    losses: Tensor | None = None
    for block, first in enumerate(range(0, count, step)):
        part = slice(first, first + step)
        loss = _block(
            formula,
            pred[part],
            slopes[part] if slopes is not None else None,
            room,
            tuple(row[part] for row in rows),
            _weights(None if weight is None else weight[part], scale, dtype),
            per,
            upstream[part] if upstream is not None and upstream.ndim else upstream,
        )
        loss = _summed(loss, per)
        if losses is None:  # in one piece: what a block leaves behind would split the heap
            losses = loss.new_zeros((blocks,) if per == "block" else (count, *loss.shape[1:]))
        losses[block if per == "block" else part] = loss
    assert losses is not None
    return _summed(losses, per), slopes


def _block(
    formula: Formula,
    pred: Tensor,
    slopes: Tensor | None,
    room: _Room,
    rows: tuple[Tensor, ...],
    weights: _Weights | None,
    per: Per,
    upstream: Tensor | None,
) -> Tensor:
    """The weighted loss of one block, not always summed yet, and maybe an inference tensor; its
    gradient is written over `slopes`.
    """
    gradient = slopes if room.gradient is None else _first(room.gradient, len(pred))
    # a closed form needs nothing of autograd, whose bookkeeping is felt where there are few rows
    with torch.inference_mode(formula.fused is not None or torch.is_inference_mode_enabled()):
        if room.pred is not None:
            pred = _first(room.pred, len(pred)).copy_(pred)
        loss = formula.compute(pred, gradient, *rows)
        if slopes is not None and gradient is not None:
            if weights is not None:
                weights.apply(gradient)
            if upstream is not None:
                gradient.mul_(upstream[:, None] if upstream.ndim == 1 else upstream)
            if gradient is not slopes:
                slopes.copy_(_representable(gradient, slopes.dtype))
        return loss if weights is None else weights.weigh(loss, per)


class _Fused(torch.autograd.Function):
    """A loss whose gradient is made in forward; backward scales it.

    The gradient is given away in the first backward. A second one, and one that is itself
    differentiated, computes what it needs again from the predictions. So does that of float16
    predictions, whose gradient would vanish before a loss scale could lift it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        pred: Tensor,
        formula: Formula,
        weight: Tensor | None,
        scale: Tensor | float,
        per: Per,
        *rows: Tensor,
    ) -> Tensor:
        ahead = pred.dtype != torch.float16
        loss, ctx.gradient = _blocks(formula, pred, rows, weight, scale, per, gradient=ahead)
        ctx.formula, ctx.scale, ctx.per = formula, scale, per
        ctx.save_for_backward(pred, weight, *rows)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradient, ctx.gradient = ctx.gradient, None
        nothing = (None,) * (len(ctx.needs_input_grad) - 1)
        create_graph = torch.is_grad_enabled()
        if gradient is not None and not create_graph:
            if not (ctx.per == "block" and sync_is_free(grad) and grad.item() == 1):
                gradient.mul_(grad[:, None] if grad.ndim == 1 else grad)
            return gradient, *nothing
        pred, weight, *rows = ctx.saved_tensors
        if create_graph:  # let autograd see the formula
            loss = _summed(ctx.scale * _plain(ctx.formula, pred, tuple(rows), weight), ctx.per)
            return *torch.autograd.grad(loss, pred, grad, create_graph=True), *nothing
        again = ctx.formula, pred, tuple(rows), weight, ctx.scale, ctx.per
        _, gradient = _blocks(*again, gradient=True, upstream=grad)
        return gradient, *nothing


class _Widen(torch.autograd.Function):
    """float16 and bfloat16 as float32."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.dtype = values.dtype
        return values.float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _representable(gradient, ctx.dtype).to(ctx.dtype)


def _representable(gradient: Tensor, dtype: torch.dtype) -> Tensor:
    """`gradient`, what is too large for that dtype turned into its largest."""
    if dtype == torch.float16:
        largest = torch.finfo(dtype).max
        gradient = gradient.clamp(-largest, largest)
    return gradient
