"""A loss as mathematics: what the technique hands over, before anything is weighed or reduced."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from detloss.tensors import wide_type, widen

GradientOf = Callable[[Tensor], Tensor]
"""``gradient_of(factor) -> gradient`` (N, K): each row's or element's own gradient times a factor
that broadcasts to it. It can be called once."""


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
        at_once: ``at_once(pred, with_gradient, *rows) -> (loss, gradient_of)``, the closed form in
            the fewest launches and passes, for an accelerator: it asks for no value. `gradient_of`
            may only be called with a gradient. It may keep what it likes and changes nothing given.
            Without `at_once`, `fused`.
    """

    value: Callable[..., Tensor]
    fused: Callable[..., Tensor] | None = None
    in_place: bool = False
    large_blocks: bool = False
    at_once: Callable[..., tuple[Tensor, GradientOf]] | None = None

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

    def compute_at_once(
        self, pred: Tensor, with_gradient: bool, *rows: Tensor
    ) -> tuple[Tensor, GradientOf]:
        """The loss of `pred` (N, K), and how to get its gradient if it is asked for."""
        if self.at_once is not None:
            return self.at_once(widen(pred), with_gradient, *rows)
        pred = pred.to(wide_type(pred), copy=self.in_place)
        gradient = None
        if with_gradient:
            gradient = torch.empty_like(pred, memory_format=torch.contiguous_format)
        loss = self.compute(pred, gradient, *rows)
        return loss, (pred if gradient is None else gradient).mul_
