"""Elementary functions, more exact or faster than PyTorch's own."""

import math

import torch
from torch import Tensor

from detloss.tensors import sync_is_free

LARGE = 80.0
"""Above it ``ln(1 + exp(z))`` is z to the last bit of a float64; below it ``exp(z)`` is finite."""


def softplus(z: Tensor) -> Tensor:
    """``ln(1 + exp(z))``, value and gradient exact: PyTorch's own turns linear at 20."""
    return torch.nn.functional.softplus(z, threshold=LARGE)


def exponential_(z: Tensor) -> Tensor:
    """``exp(z)`` in place, within ``|z|`` roundings.

    On a CPU it is computed as a power of two: PyTorch's own ``exp`` is MKL's there, which takes
    four times as long on AMD.
    """
    return z.mul_(math.log2(math.e)).exp2_() if z.is_cpu else z.exp_()


def softplus_with_derivative(z: Tensor, derivative: Tensor | None) -> Tensor:
    """`softplus`, and its derivative, the sigmoid, over `derivative` if given; z is used up."""
    if derivative is not None:
        torch.sigmoid(z, out=derivative)
    return softplus_(z)


def softplus_backward(z: Tensor, factor: Tensor) -> Tensor:
    """The gradient of `softplus` times a factor that broadcasts to z, in one launch."""
    gradient: Tensor = torch.ops.aten.softplus_backward(factor, z, 1, LARGE)
    return gradient


def exponential_backward(z: Tensor, factor: Tensor) -> Tensor:
    """``exp(z)`` times a factor that broadcasts to z, for z <= 0, in one launch.

    The exponential is the derivative of ELU there.
    """
    gradient: Tensor = torch.ops.aten.elu_backward(factor, 1, 1, 1, False, z)
    return gradient


def softplus_(z: Tensor) -> Tensor:
    """`softplus`, on a CPU in place.

    There two vectorised functions are faster than PyTorch's scalar one. Only a large logit makes
    ``exp`` overflow, and it can be looked for without a host sync.
    """
    if not sync_is_free(z):
        return softplus(z)
    if z.numel() and z.amax().item() < LARGE:
        return exponential_(z).log1p_()
    return z.copy_(softplus(z))


def cross_entropy(x: Tensor, label: Tensor) -> Tensor:
    """``-y ln p - (1 - y) ln(1 - p)``, ``p = sigmoid(x)``, with all digits for a label in [0, 1].

    ``ln(1 + exp(x)) - y x`` would lose them to the difference where both are near x. An infinite
    logit that is right costs 0.
    """
    above = x > 0
    of_logit = zero_or_product(torch.where(above, 1 - label, -label), x)
    return softplus(torch.where(above, -x, x)) + of_logit


def zero_or_product(factor: Tensor, values: Tensor) -> Tensor:
    """``factor * values``, but 0 where the factor is 0, also of an infinite value."""
    return torch.where(factor == 0, 0, factor * values)


def label_minus_sigmoid(x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """``y - p`` and ``p (1 - p)``, ``p = sigmoid(x)``, with all their digits.

    Where p comes near 1, ``1 - p = sigmoid(-x)`` keeps its digits, and ``y - p`` is ``(1 - p) -
    (1 - y)``.
    """
    above = x > 0
    smaller = torch.where(above, -x, x).sigmoid()
    return torch.where(above, smaller - (1 - label), label - smaller), smaller * (1 - smaller)


def modulated_softplus(z: Tensor, gamma: float, *, detach: bool = False) -> Tensor:
    """``p^gamma L``, ``p = sigmoid(z)``, ``L = -ln(1 - p)``: the focal loss of a negative.

    The power is an exponential of ``ln p = z - L``, whose gradient is finite at p = 0. Beyond LARGE
    p is 1. With `detach` the power carries no gradient.
    """
    moderate = z.clamp(torch.finfo(z.dtype).min, LARGE)  # 0 times -inf would be a nan
    loss = softplus(moderate)
    modulation = (gamma * (moderate - loss)).exp()
    if detach:
        modulation = modulation.detach()
    return modulation * torch.where(z >= LARGE, z, loss)


def modulated_softplus_with_derivative(
    z: Tensor, derivative: Tensor | None, gamma: float, *, detach: bool = False
) -> Tensor:
    """`modulated_softplus`, and its derivative ``p^gamma ((1 - p) gamma L + p)``, in few passes.

    With `detach` the derivative is ``p^gamma p``.
    """
    p = z.sigmoid()
    loss = softplus_(z)
    if derivative is not None:
        if detach or gamma == 0:
            derivative.copy_(p)
        else:
            torch.sub(1.0, p, out=derivative)
            torch.addcmul(p, derivative, loss, value=gamma, out=derivative)
    modulation = sigmoid_power_(p, gamma)
    if derivative is not None:
        derivative.mul_(modulation)
    return loss.mul_(modulation)


def sigmoid_power_(p: Tensor, gamma: float) -> Tensor:
    """``p^gamma`` of probabilities, in place."""
    if gamma == 2:
        return p.square_()
    if gamma > 0:
        return exponential_(p.log_().mul_(gamma))
    return p.fill_(1)


def without_first_power(w: Tensor, loss: Tensor) -> Tensor:
    """``loss - w`` with all its digits, where ``loss = -ln(1 - w) = w + w^2 / 2 + w^3 / 3 + ...``.

    Below 1/5 the difference would lose them. There, with ``s = w / (2 - w)``, it is ``w s + 2 (s^3
    / 3 + s^5 / 5 + ...)``, of which each term is positive.
    """
    small = w.clamp(max=0.2)
    s = small / (2 - small)
    squared, series = s * s, torch.zeros_like(s)
    for power in range(19, 1, -2):  # s is at most 1/9
        series = 1 / power + squared * series
    return torch.where(w < 0.2, s * (small + 2 * squared * series), loss - w)
