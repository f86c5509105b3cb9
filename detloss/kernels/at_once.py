"""A loss and its gradient with all rows at once, for an accelerator.

A launch costs 5 to 10 microseconds whatever it computes, and a pass over memory more than the
arithmetic in it. So whatever multiplies the gradient, weights, scale and what comes from above,
becomes one factor, and that is multiplied in once, in backward. No value is asked for: that would
be a host sync.
"""

from typing import Any

import torch
from torch import Tensor

from detloss.kernels.autograd import gradient_with_graph
from detloss.kernels.blocks import BlockWeights, LossCall
from detloss.kernels.formula import GradientOf
from detloss.tensors import wide_type


class LossAtOnce(torch.autograd.Function):
    """A loss whose forward keeps what its gradient needs, for one backward.

    A second backward, and one that is itself differentiated, starts again from the predictions.
    """

    @staticmethod
    def forward(ctx: Any, pred: Tensor, call: LossCall) -> Tensor:
        """The loss of `pred` (N, K); nothing in `call` wants a gradient."""
        loss, ctx.gradient_of = compute_at_once(call, pred, with_gradient=True)
        ctx.save_for_backward(pred, *call.tensors())
        ctx.call = call.without_tensors()
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        """The gradient for `pred`; `grad` is 0-d or like the loss."""
        gradient_of, ctx.gradient_of = ctx.gradient_of, None
        if gradient_of is not None and not torch.is_grad_enabled():
            return gradient_of(grad), None
        pred, *tensors = ctx.saved_tensors
        call = ctx.call.with_tensors(tensors)
        if torch.is_grad_enabled():
            return gradient_with_graph(call, pred, grad), None
        _, gradient_of = compute_at_once(call, pred, with_gradient=True)
        return gradient_of(grad), None


def compute_at_once(
    call: LossCall, pred: Tensor, *, with_gradient: bool
) -> tuple[Tensor, GradientOf]:
    """The weighted, summed loss of predictions (N, K), and how to get its gradient (N, K).

    ``gradient_of(grad)``, `grad` 0-d or like the loss, can be called once, and if it was asked for.
    """
    weights = BlockWeights(call.weight, call.scale, wide_type(pred))
    loss, own_gradient_of = call.formula.compute_at_once(pred, with_gradient, *call.rows)

    def gradient_of(grad: Tensor) -> Tensor:
        factor = _beside_elements(grad)
        if isinstance(weights.factor, Tensor):
            factor = factor * _beside_elements(weights.factor)
        elif weights.factor != 1:
            factor = factor * weights.factor
        gradient = own_gradient_of(factor)
        if weights.zero is not None:
            gradient.masked_fill_(_beside_elements(weights.zero), 0)
        return gradient.to(pred.dtype)

    return call.sum(weights.weigh(loss, call.sum_over)), gradient_of


def _beside_elements(values: Tensor) -> Tensor:
    """Values (), (N,) or (N, K) so that they broadcast to (N, K)."""
    return values[:, None] if values.ndim == 1 else values
