"""How a formula is run: the one place that knows about speed.

A technique hands over its formula as a plain function of predictions, targets and whatever else
has one row a prediction; it knows nothing of weights, reductions, dtypes or devices.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from detloss.boxes.checking import HALF_TYPES
from detloss.kernels.reduction import Reduction, reduce

Formula = Callable[..., Tensor]
"""``formula(pred, *rows) -> loss``: plain, differentiable in `pred`, finite where `pred` is."""


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
        formula: See `Formula`.
        pred: (..., K) predictions; float16 and bfloat16 are computed in float32.
        *rows: What else the formula takes, each (...,) or (..., K); floating ones are detached
            by nobody: a gradient flows to them where they ask for one.
        weight: (...,) or (..., K) factors of the loss. Where it is 0 both value and gradient are
            exactly 0, whatever `pred` and `rows` hold there.
        count: What a mean divides by.
        reduction: "none", "sum" or "mean".

    Returns:
        The loss: the formula's shape, or a scalar.
    """
    pred = _Widen.apply(pred) if pred.dtype in HALF_TYPES else pred
    if weight is None:
        return reduce(formula(pred, *rows), count, reduction)

    rowwise = weight if weight.ndim < pred.ndim else weight.ne(0).any(-1)
    silent_rows = rowwise == 0
    pred = torch.where(silent_rows[..., None], 0, pred)
    if weight.ndim == pred.ndim:
        pred = torch.where(weight == 0, 0, pred)
    loss = formula(pred, *(_silence(row, silent_rows) for row in rows))
    weight = (weight if weight.ndim == loss.ndim else weight[..., None]).to(loss.dtype)
    return reduce(torch.where(weight == 0, 0, loss * weight), count, reduction)


def _silence(row: Tensor, silent: Tensor) -> Tensor:
    """`row` with zeros where a row is silent, so that a NaN in it reaches nothing."""
    return torch.where(silent if row.ndim == silent.ndim else silent[..., None], 0, row)


class _Widen(torch.autograd.Function):
    """float16 and bfloat16 as float32; a gradient too large for them becomes their largest."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.dtype = values.dtype
        return values.float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        largest = torch.finfo(ctx.dtype).max
        return gradient.clamp(-largest, largest).to(ctx.dtype)
