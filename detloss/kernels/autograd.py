"""The two ways to a gradient: autograd through the plain formula, or made beside the value."""

from typing import Any

import torch
from torch import Tensor

from detloss.kernels.blocks import LossCall, compute_in_blocks
from detloss.kernels.formula import Formula
from detloss.tensors import widen


def plain_loss(
    formula: Formula, pred: Tensor, rows: tuple[Tensor, ...], weight: Tensor | None
) -> Tensor:
    """The weighted loss by the plain formula, which autograd or a compiler can see.

    Args:
        formula: What to compute.
        pred: (..., K) predictions.
        rows: What else the formula takes, each (...,) or (..., K).
        weight: (...,) or (..., K) factors, or booleans; None for ones.

    Returns:
        (...,) or (..., K), as the formula gives it.
    """
    pred = widen(pred)
    if weight is None:
        return formula.plain(pred, *rows)
    # zeros go in where the weight is 0: a NaN there would come back as 0 * NaN in the backward
    zero = weight == 0
    zero_rows = zero if weight.ndim < pred.ndim else zero.all(-1)
    pred = _zeroed(pred, zero)
    loss = formula.plain(pred, *(_zeroed(row, zero_rows) for row in rows))
    weight = (weight if weight.ndim == loss.ndim else weight[..., None]).to(loss.dtype)
    return torch.where(weight == 0, 0, loss * weight)


def _zeroed(values: Tensor, where: Tensor) -> Tensor:
    """`values` (...,) or (..., K) with 0 where the mask, (...,) or (..., K), says so."""
    return torch.where(where if values.ndim == where.ndim else where[..., None], 0, values)


class FusedLoss(torch.autograd.Function):
    """A loss on a CPU whose gradient is made in forward; backward only scales it.

    The first backward gives that gradient away instead of a copy. A second backward, and one that
    is itself differentiated, starts again from the predictions. So does the backward of float16
    predictions: their gradient would vanish in float16 before a loss scale can lift it.
    """

    @staticmethod
    def forward(ctx: Any, pred: Tensor, call: LossCall) -> Tensor:
        """The loss of `pred` (N, K); nothing in `call` wants a gradient."""
        now = pred.dtype != torch.float16
        loss, ctx.gradient = compute_in_blocks(call, pred, with_gradient=now)
        ctx.save_for_backward(pred, *call.tensors())
        ctx.call = call.without_tensors()
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        """The gradient for `pred`; `grad` is 0-d or like the loss."""
        gradient, ctx.gradient = ctx.gradient, None
        create_graph = torch.is_grad_enabled()
        if gradient is not None and not create_graph:
            if grad.ndim or grad.item() != 1:
                gradient.mul_(grad[:, None] if grad.ndim == 1 else grad)
            return gradient, None
        pred, *tensors = ctx.saved_tensors
        call = ctx.call.with_tensors(tensors)
        if create_graph:
            return gradient_with_graph(call, pred, grad), None
        _, gradient = compute_in_blocks(call, pred, with_gradient=True, upstream=grad)
        return gradient, None


def gradient_with_graph(call: LossCall, pred: Tensor, grad: Tensor) -> Tensor:
    """The gradient (N, K) of a call, `grad` times, itself differentiable by the plain formula.

    `grad` is 0-d or like the loss.
    """
    loss = call.sum(call.scale * plain_loss(call.formula, pred, call.rows, call.weight))
    gradient: Tensor = torch.autograd.grad(loss, pred, grad, create_graph=True)[0]
    return gradient
