"""Elementary functions, more exact or faster than PyTorch's own."""

import torch
from torch import Tensor

from detloss.boxes.looking import may_look

LARGE = 80.0
"""Beyond it ``ln(1 + exp(z))`` is z to the last bit of a float64, and below ``exp`` is finite."""


def softplus(z: Tensor) -> Tensor:
    """``ln(1 + exp(z))``, value and gradient exact: PyTorch's own turns linear at 20."""
    return torch.nn.functional.softplus(z, threshold=LARGE)


def softplus_with_slope(z: Tensor, slope: Tensor | None) -> Tensor:
    """`softplus` in place; its slope, the sigmoid, is written over `slope`, if there is one.

    On a CPU both come from one exponential, and two vectorised functions beat PyTorch's scalar
    one: there, looking for the logit that would overflow ``exp`` waits for nobody.
    """
    if may_look(z) and z.numel() and z.amax().item() < LARGE:
        power = z.exp_()
        if slope is not None:
            torch.div(power, torch.add(power, 1, out=slope), out=slope)
        return power.log1p_()
    if slope is not None:
        torch.sigmoid(z, out=slope)
    return z.copy_(softplus(z))
