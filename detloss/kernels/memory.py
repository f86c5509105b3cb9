"""Memory on a CPU, where touching a new page costs more than the arithmetic done in it."""

from functools import cache

import torch

KEPT = 8 * 2**20
"""Half the bytes that freed temporaries may take up before the system gets them back."""


@cache
def keep_freed_memory() -> None:
    """Makes the C library keep what the temporaries of a block took, for those of the next.

    glibc returns the end of the heap to the system beyond a threshold, twice the size of the
    largest piece that was ever mapped and freed again, 32 MiB at most. So one large piece is; it
    is not touched, and takes no memory. It counts for the whole process, as with any program that
    frees a large tensor.
    """
    torch.empty(KEPT, dtype=torch.uint8)
