"""Elementary functions, more exact or faster than PyTorch's own."""

import math

import torch
from torch import Tensor

from detloss.tensors import sync_is_free

LARGE = 80.0
"""Beyond it ``ln(1 + exp(z))`` is z to the last bit of a float64, and below ``exp`` is finite."""


def softplus(z: Tensor) -> Tensor:
    """``ln(1 + exp(z))``, value and gradient exact: PyTorch's own turns linear at 20."""
    return torch.nn.functional.softplus(z, threshold=LARGE)


def exponential_(z: Tensor) -> Tensor:
    """``exp(z)`` in place, within ``|z|`` roundings.

    On a CPU it is a power of two: PyTorch's ``exp`` is MKL's there, on AMD four times as slow.
    """
    return z.mul_(math.log2(math.e)).exp2_() if z.is_cpu else z.exp_()


def softplus_with_slope(z: Tensor, slope: Tensor | None) -> Tensor:
    """`softplus` in place; its slope, the sigmoid, is written over `slope`, if there is one."""
    if slope is not None:
        torch.sigmoid(z, out=slope)
    return softplus_(z)


def softplus_(z: Tensor) -> Tensor:
    """`softplus` in place.

    On a CPU two vectorised functions beat PyTorch's scalar one: there, looking for the logit that
    would overflow ``exp`` waits for nobody.
    """
    if sync_is_free(z) and z.numel() and z.amax().item() < LARGE:
        return exponential_(z).log1p_()
    return z.copy_(softplus(z))
