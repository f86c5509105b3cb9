"""Memory on a CPU, where touching a new page costs more than the arithmetic done in it."""

import math
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


_SPECIAL = torch.tensor(
    [-math.inf, -1.0, -0.0, math.inf, math.nan] * 16, dtype=torch.float32, device="cpu"
)
"""Arguments of ``ln(1 + x)`` whose results are constants, enough of them for a vector of each."""


def load_constants() -> None:
    """Has the page of PyTorch's library in memory on which the constants of ``ln(1 + x)`` lie.

    The vectorised function reads them under a mask, which ordinary arguments leave empty. While no
    one has read anything near them the page is not there, an empty mask does not make the system
    fetch it, and the processor sorts out the fault anew for every vector: `log1p`, `softplus` and
    `logsigmoid` of float32 take up to 20 times as long. Whether a process starts like that depends
    on the release of PyTorch, and the system may take the page back. To read the constants is a
    microsecond, so it is done in every call.
    """
    torch.log1p(_SPECIAL)


load_constants()  # for compiled code, which no call of this package goes through
