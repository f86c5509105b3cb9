"""Whether a value may decide what is computed. On an accelerator, asking for one is a wait."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_BLIND = ContextVar("without_looking", default=False)


def may_look(tensor: Tensor) -> bool:
    """Whether looking at `tensor` waits for nobody: in eager mode on a CPU."""
    return tensor.is_cpu and not torch.compiler.is_compiling() and not _BLIND.get()


@contextmanager
def without_looking() -> Iterator[None]:
    """Within, a CPU takes the way of an accelerator: for tests that hold both against each other.

    Example:
        >>> with without_looking():
        ...     may_look(torch.zeros(1))
        False
    """
    token = _BLIND.set(True)
    try:
        yield
    finally:
        _BLIND.reset(token)
