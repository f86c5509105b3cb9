"""A loss and its gradient, block by block, in memory that is used again.

On a CPU the cost of a loss is fresh memory, not arithmetic. So the rows are cut into blocks whose
temporaries fit a core's cache, and a block is finished, weights and sum included, before the next
one begins. An accelerator takes another way, `at_once.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from detloss.kernels.formula import Formula
from detloss.kernels.memory import keep_freed_memory, load_constants
from detloss.tensors import HALF_TYPES, sync_is_free, wide_type

BLOCK = 262_144
"""Predictions in a block: with its temporaries about the size of a core's second-level cache."""

LARGE_BLOCK = 4_194_304
"""The same for a formula without such temporaries.

PyTorch spreads an operator that gives one value a row over the cores from 32,768 rows on. With
fewer rows, one core has to fetch what the others have just computed. A block of this size holds so
many rows of up to 128 classes.
"""

SumOver = Literal["nothing", "row", "all"]
"""What the weighted losses of a call are summed over."""


class LossCall(NamedTuple):
    """What a call computes, apart from the predictions (N, K) that it is computed for.

    Attributes:
        formula: The loss of the rows.
        rows: What else the formula takes, each (N,) or (N, K).
        weight: (N,) or (N, K) factors, or booleans; None for ones.
        scale: A factor of everything, a number or 0-d.
        sum_over: What the weighted losses are summed over.
    """

    formula: Formula
    rows: tuple[Tensor, ...]
    weight: Tensor | None
    scale: Tensor | float
    sum_over: SumOver

    def of_rows(self, part: slice) -> LossCall:
        """The same for some of the rows."""
        weight = None if self.weight is None else self.weight[part]
        return self._replace(rows=tuple(row[part] for row in self.rows), weight=weight)

    def tensors(self) -> tuple[Tensor | None, ...]:
        """The weight and the rows, for autograd to keep."""
        return self.weight, *self.rows

    def without_tensors(self) -> LossCall:
        """The rest."""
        return LossCall(self.formula, (), None, self.scale, self.sum_over)

    def with_tensors(self, tensors: Sequence[Any]) -> LossCall:
        """The whole again, from what `tensors` gave."""
        return self._replace(weight=tensors[0], rows=tuple(tensors[1:]))

    def sum(self, loss: Tensor) -> Tensor:
        """`loss` summed as the call asks, as far as it is not yet."""
        if self.sum_over == "all":
            return loss.sum() if loss.ndim else loss
        return loss.sum(-1) if self.sum_over == "row" and loss.ndim == 2 else loss


class BlockWeights:
    """What multiplies the losses of a block, and their gradient: exactly 0 where a weight is 0.

    Args:
        weight: (N,) or (N, K) factors, or booleans; None for ones.
        scale: A factor of everything, a number or 0-d.
        dtype: What the loss is computed in.
    """

    def __init__(self, weight: Tensor | None, scale: Tensor | float, dtype: torch.dtype) -> None:
        self.ndim = 0 if weight is None else weight.ndim
        self.factor = scale  # a number, 0-d, or like the weight
        self.zero: Tensor | None = None  # where the weight is 0, a mask like it
        self.zero_rows: Tensor | None = None  # the same as row numbers, where those can be read
        if weight is None:
            return
        if weight.dtype == torch.bool:
            self.zero = ~weight
        else:
            self.zero = weight == 0
            self.factor = weight.to(dtype) * scale
        if not sync_is_free(weight):
            return
        if weight.ndim == 1:  # to fill a few rows is faster than to pass over all
            self.zero_rows = self.zero.nonzero().view(-1)
        elif not self.zero.any():
            self.zero = None

    def multiply(self, values: Tensor) -> None:
        """Multiplies `values`, (), (N,) or (N, K), in place; a NaN times a weight of 0 is 0."""
        one_a_row = self.ndim < values.ndim
        factor = self.factor
        if isinstance(factor, Tensor) and factor.ndim:
            values.mul_(factor[:, None] if one_a_row else factor)
        elif isinstance(factor, Tensor) or factor != 1:
            values.mul_(factor)
        if self.zero_rows is not None:
            values.index_fill_(0, self.zero_rows, 0)
        elif self.zero is not None:
            values.masked_fill_(self.zero[:, None] if one_a_row else self.zero, 0)

    def weigh(self, loss: Tensor, sum_over: SumOver) -> Tensor:
        """`loss` (N,) or (N, K), weighted; it may be overwritten.

        What has one factor in common is summed before it is multiplied.
        """
        if sum_over == "all" and self.ndim == 0:
            loss = loss.sum()
        elif sum_over != "nothing" and self.ndim < loss.ndim == 2:
            loss = loss.sum(-1)
        self.multiply(loss)
        return loss


class Scratch(NamedTuple):
    """Memory of a block's size that all blocks share, so that none has to be fetched for each.

    Attributes:
        pred: For a copy of the predictions, where the formula overwrites them.
        gradient: For the gradient in float32, where the predictions are of a half type.
    """

    pred: Tensor | None
    gradient: Tensor | None


NO_SCRATCH = Scratch(None, None)


def compute_in_blocks(
    call: LossCall, pred: Tensor, *, with_gradient: bool, upstream: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The weighted, summed loss of predictions (N, K) on a CPU, and if asked for its gradient.

    `upstream`, 0-d or like the loss, multiplies the gradient before it is rounded to a half type.
    """
    keep_freed_memory()
    load_constants()
    gradient = None
    if with_gradient:
        gradient = torch.empty_like(pred, memory_format=torch.contiguous_format)
    blocks = _count_blocks(call.formula, pred, with_gradient)
    block_rows = -(-len(pred) // blocks)
    scratch = _scratch_for(call.formula, pred, block_rows, with_gradient)
    if blocks == 1:
        loss = call.sum(_compute_block(call, pred, gradient, scratch, upstream))
        return (loss.clone() if loss.is_inference() else loss), gradient
    losses: Tensor | None = None
    for block, first in enumerate(range(0, len(pred), block_rows)):
        part = slice(first, first + block_rows)
        loss = _compute_block(
            call.of_rows(part),
            pred[part],
            gradient[part] if gradient is not None else None,
            scratch,
            upstream[part] if upstream is not None and upstream.ndim else upstream,
        )
        loss = call.sum(loss)
        if losses is None:  # in one piece: a small tensor a block would split the heap
            losses = loss.new_zeros(len(pred) if loss.ndim else blocks, *loss.shape[1:])
        losses[part if loss.ndim else block] = loss
    assert losses is not None
    return call.sum(losses), gradient


def _count_blocks(formula: Formula, pred: Tensor, with_gradient: bool) -> int:
    """How many blocks of about the same size to cut `pred` (N, K) into."""
    size = BLOCK
    if formula.large_blocks and pred.dtype not in HALF_TYPES:
        # without a gradient to write over, the formula makes a temporary of its size
        size = LARGE_BLOCK if with_gradient else 2 * BLOCK
    if pred.numel() <= size:
        return 1
    return -(-pred.numel() // size)


def _scratch_for(formula: Formula, pred: Tensor, rows: int, with_gradient: bool) -> Scratch:
    """The memory that blocks of so many rows of `pred` (N, K) share."""
    narrow = pred.dtype in HALF_TYPES
    if not (formula.in_place or narrow):
        return NO_SCRATCH
    shape, dtype = (rows, pred.shape[1]), wide_type(pred)
    return Scratch(
        pred.new_empty(shape, dtype=dtype) if formula.in_place else None,
        pred.new_empty(shape, dtype=dtype) if with_gradient and narrow else None,
    )


def _compute_block(
    call: LossCall,
    pred: Tensor,
    gradient: Tensor | None,
    scratch: Scratch,
    upstream: Tensor | None,
) -> Tensor:
    """The weighted loss of one block (n, K); its gradient is written over `gradient` (n, K).

    The loss may not be summed yet, and may be an inference tensor.
    """
    weights = None
    if call.weight is not None or not isinstance(call.scale, float) or call.scale != 1:
        weights = BlockWeights(call.weight, call.scale, wide_type(pred))
    wide = gradient if scratch.gradient is None else scratch.gradient[: len(pred)]
    # a closed form needs nothing of autograd, whose bookkeeping is felt where there are few rows
    with torch.inference_mode(call.formula.fused is not None or torch.is_inference_mode_enabled()):
        if scratch.pred is not None:
            pred = scratch.pred[: len(pred)].copy_(pred)
        loss = call.formula.compute(pred, wide, *call.rows)
        if gradient is not None and wide is not None:
            if weights is not None:
                weights.multiply(wide)
            if upstream is not None:
                wide.mul_(upstream[:, None] if upstream.ndim == 1 else upstream)
            if wide is not gradient:
                gradient.copy_(wide)  # infinite beyond float16, so that a loss scale is halved
        return loss if weights is None else weights.weigh(loss, call.sum_over)
