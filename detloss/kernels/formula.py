"""A loss as mathematics: what the technique hands over, before anything is weighed or reduced."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from detloss.tensors import widen


class Formula(NamedTuple):
    """The loss of each row, plainly, and if there is one its closed form with the gradient.

    Attributes:
        value: ``value(pred, *rows) -> loss``, (N, K) -> (N,) or (N, K): plain, differentiable, and
            finite where `pred` is. It defines the loss.
        fused: ``fused(pred, gradient, *rows) -> loss``, the closed form. It also writes the
            gradient of each row's or element's own loss over `gradient` (N, K), contiguous, unless
            that is None. It changes nothing else. Without `fused`, autograd differentiates `value`.
        in_place: Whether `fused` may overwrite `pred` as well. It then gets a contiguous copy.
        large_blocks: Whether `gradient` is the only tensor of a block's size that `fused` needs.
            Blocks may then be much larger.
    """

    value: Callable[..., Tensor]
    fused: Callable[..., Tensor] | None = None
    in_place: bool = False
    large_blocks: bool = False

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
        """The loss of `pred` (N, K); its gradient is written over `gradient`, unless None."""
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
