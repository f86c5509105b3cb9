"""Memory on a CPU, where touching a new page costs more than the arithmetic done in it."""

from functools import cache

import torch

KEPT = 8 * 2**20
"""Half the bytes that freed temporaries may take up before the system gets them back."""


@cache
def keep_freed_memory() -> None:
    """Makes the C library keep the memory of a block's temporaries for those of the next block.

    glibc gives free memory at the end of the heap back to the system once there is more of it than
    a threshold: twice the size of the largest piece that was ever mapped and freed, if that piece
    had 32 MiB at most. So a piece of KEPT bytes is allocated here and freed. Nothing is written to
    it, so it never takes up memory. The threshold then holds for the whole process, as it does in
    any program that has freed a large tensor.
    """
    torch.empty(KEPT, dtype=torch.uint8)
