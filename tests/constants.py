"""What a loss detaches, held while its predictions move: its gradient is that of the rest."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from detloss.kernels import plain_formulas


@contextmanager
def detaching_by(detach: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within, that is what `Tensor.detach` does."""
    original = torch.Tensor.detach
    torch.Tensor.detach = detach  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.detach = original  # type: ignore[method-assign]


def holding_constants(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`function` of predictions, in which each detached tensor stays what it was at first.

    The first call is an ordinary one. The others take the plain formula. So differences of it are
    what the gradient of the first call has to be, as for `torch.autograd.gradcheck`.
    """
    constants: list[Tensor] = []
    original = torch.Tensor.detach

    def keep(values: Tensor) -> Tensor:
        constants.append(original(values).clone())
        return constants[-1]

    def held(pred: Tensor) -> Tensor:
        if not constants:
            with plain_formulas(), detaching_by(keep):
                function(pred)
            constants.append(torch.empty(0))  # of the first call, where nothing is detached
            return function(pred)
        kept = iter(constants)
        with plain_formulas(), detaching_by(lambda _: next(kept)):
            return function(pred)

    return held
