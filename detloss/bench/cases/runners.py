"""Runners of a case: what a package computes, forward and backward, on the same predictions."""

import contextlib
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from detloss.bench.measure import Run
from detloss.kernels import plain_formulas


def optional(module: str) -> Any:
    """The module, or None where it is not installed or does not import."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # some greet the user; stdout may be JSON
            return importlib.import_module(module)
    except Exception:  # a peer may fail in any way; then it is not compared
        return None


def forward_backward(loss: Callable[..., Tensor], *predictions: Tensor) -> Run:
    """The loss of these predictions, a scalar, and its gradient for each of them."""

    def run() -> Sequence[Tensor]:
        leaves = [data.detach().requires_grad_() for data in predictions]
        value = loss(*leaves)
        value.backward()  # type: ignore[no-untyped-call]
        return value, *(leaf.grad for leaf in leaves if leaf.grad is not None)

    return run


def in_plain(run: Run) -> Run:
    """`run` with detloss's plain formulas on the whole tensor, autograd doing the rest."""

    def plainly() -> Any:
        with plain_formulas():
            return run()

    return plainly


def normal(
    *shape: int, device: torch.device, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Tensor:
    """Normally distributed values, the same ones on every device; on "meta" there are none."""
    if device.type == "meta":
        return torch.empty(shape, dtype=dtype, device=device)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(device, dtype)
