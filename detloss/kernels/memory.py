"""Memory on a CPU, where touching a new page costs more than the arithmetic done in it."""

from functools import cache

import numpy
import torch
from torch import Tensor

from detloss.boxes.looking import may_look

HUGE = 4 * 2**20
"""Bytes from which NumPy asks for huge pages."""
ALIGNMENT = 64
"""Bytes of the widest vector register: loads that straddle cache lines are slower."""
KEPT = 16 * 2**20
"""Half the bytes that freed temporaries may take up before the system gets them back."""


def fresh_like(values: Tensor) -> Tensor:
    """A contiguous tensor like `values`, its contents anything.

    What is large comes from NumPy, which asks Linux for huge pages: one page fault for 2 MiB
    instead of 512. Such a tensor cannot be resized.
    """
    if not may_look(values) or values.nbytes < HUGE:
        return torch.empty_like(values, memory_format=torch.contiguous_format)
    memory = torch.from_numpy(numpy.empty(values.nbytes + ALIGNMENT, dtype=numpy.uint8))
    first = -memory.data_ptr() % ALIGNMENT
    fresh = memory[first : first + values.nbytes].view(values.dtype).view(values.shape)
    return fresh.detach()  # a tensor of its own, no view


@cache
def keep_freed_memory() -> None:
    """Makes the C library keep what the temporaries of a block took, for those of the next.

    It does so for the whole process, as any program does that frees a large tensor.

    glibc returns the end of the heap to the system beyond a threshold, twice the size of the
    largest piece that was ever mapped and freed again, 32 MiB at most. So one large piece is; it
    is not touched, and takes no memory.
    """
    torch.empty(KEPT, dtype=torch.uint8)
