"""Which way a call of a loss takes, from a technique's formula to a reduced loss.

    box_loss, bins_loss, binary_loss, softmax_loss      check the arguments, make a `Formula`
                        |
                       run
                        |-- does autograd, a compiler or a torch.func transform need to see the
                        |   formula? ------ yes -->  plain_loss       autograd.py: the whole tensor
                        no                                            in one expression
                        |-- on an accelerator? -- yes -->  compute_at_once    at_once.py: all rows,
                        no                                            then the gradient in backward
                        |-- does pred need a gradient?
                        |            |---- yes -->  FusedLoss         autograd.py: forward makes the
                        no                              |             gradient, backward scales it
                        |                               |
                        '------------> compute_in_blocks              blocks.py: for each block
                                           Formula.compute            formula.py: loss and gradient
                                           BlockWeights, sum

All ways compute the same loss: `plain_formulas` forces the first one, for tests to compare, and
`without_host_sync` the second one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from detloss.kernels.at_once import LossAtOnce, compute_at_once
from detloss.kernels.autograd import FusedLoss, plain_loss
from detloss.kernels.blocks import LossCall, SumOver, compute_in_blocks
from detloss.kernels.formula import Formula
from detloss.kernels.reduction import Reduction, at_least_one, reduce
from detloss.tensors import sync_is_free, wide_type

SUM_OVER: dict[Reduction, SumOver] = {
    "none": "nothing",
    "image": "row",
    "sum": "all",
    "mean": "all",
}
_PLAIN = ContextVar("plain_formulas", default=False)


@contextmanager
def plain_formulas() -> Iterator[None]:
    """Within, every loss runs by its plain formula and autograd.

    Tests and benchmarks compare the closed forms with that.
    """
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


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
        weight: (...,) or (..., K) factors of the loss, or booleans: what counts. Where it is 0,
            both value and gradient are exactly 0, whatever `pred` and `rows` hold there.
        count: What a mean divides by; the mean of nothing is 0.
        reduction: "none", "sum", "mean" or "image".
        scale: A factor of everything, a number or 0-d.

    Returns:
        The loss: the formula's shape, a scalar, or (B,) for "image".
    """
    if _needs_plain_formula(*rows, weight):
        return reduce(scale * plain_loss(formula, pred, rows, weight), count, reduction)
    if reduction == "mean":
        scale = scale / at_least_one(_number(count, wide_type(pred)))
    shape = pred.shape
    if len(shape) != 2:
        pred = pred.reshape(-1, shape[-1])
        rows = tuple(_flat(row, shape) for row in rows)
        weight = None if weight is None else _flat(weight, shape)
    call = LossCall(formula, rows, weight, scale, SUM_OVER[reduction])
    with_gradient = torch.is_grad_enabled() and pred.requires_grad
    loss: Tensor
    if sync_is_free(pred):
        if with_gradient:
            loss = FusedLoss.apply(pred, call)
        else:
            loss, _ = compute_in_blocks(call, pred, with_gradient=False)
    elif with_gradient:
        loss = LossAtOnce.apply(pred, call)
    else:
        loss, _ = compute_at_once(call, pred, with_gradient=False)
    if loss.ndim:
        loss = loss.reshape(shape[: len(shape) - 2 + loss.ndim])
    return reduce(loss, 1, "image") if reduction == "image" else loss


def _needs_plain_formula(*others: Tensor | None) -> bool:
    """Whether the formula itself must be seen; `others` is all that it takes beside `pred`."""
    return (
        torch.compiler.is_compiling()
        or _PLAIN.get()
        or torch._C._are_functorch_transforms_active()
        or (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in others))
    )


def _number(count: Tensor | float, dtype: torch.dtype) -> Any:
    """`count` as a number where reading it needs no host sync, else as a tensor of that dtype."""
    if not isinstance(count, Tensor):
        return count
    return count.item() if sync_is_free(count) else count.to(dtype)


def _flat(row: Tensor, shape: torch.Size) -> Tensor:
    """`row` beside predictions of that shape, the leading axes as one: (N,) or (N, K)."""
    return row.reshape(-1, *row.shape[len(shape) - 1 :])
