"""What a loss detaches, held while its predictions move: its gradient is that of the rest."""

from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import Tensor

from detloss.kernels import plain_formulas


def holding_constants(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`function` of predictions, in which each detached tensor stays what it was at first.

    The first call is an ordinary one. The others take the plain formula. So differences of it are
    what the gradient of the first call has to be, as for `torch.autograd.gradcheck`.

    `Tensor.detach` is patched, since nothing else sees what a formula detaches inside of it.
    """
    constants: list[Tensor] = []
    original = Tensor.detach

    def keep(values: Tensor) -> Tensor:
        constants.append(original(values).clone())
        return constants[-1]

    def held(pred: Tensor) -> Tensor:
        if not constants:
            with plain_formulas(), patch.object(Tensor, "detach", keep):
                function(pred)
            constants.append(torch.empty(0))  # of the first call, where nothing is detached
            return function(pred)
        kept = iter(constants)
        with plain_formulas(), patch.object(Tensor, "detach", lambda _: next(kept)):
            return function(pred)

    return held
