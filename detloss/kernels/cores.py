"""Many pairs cut into parts, one for each core.

PyTorch gives each core an equal share of the values, in the order of the memory. All that is
computed for a part lies together there, so the same core works on a part from the first operator to
the last, and finds what it needs in its own cache.
"""

import torch
from torch import Tensor

LEAST_PART = 4096
"""Pairs in a part at least. A tensor of four values a pair is then one that PyTorch computes on
several cores; it leaves one of under 32,768 values to one core.
"""


class Parts:
    """A number of pairs as parts of equal size, one for each core.

    Where the pairs cannot be divided so, the last part begins before the one ahead of it ends, and
    the pairs between are in both.

    Attributes:
        number: How many parts.
        size: Pairs in each.
    """

    def __init__(self, count: int, *, is_cpu: bool) -> None:
        cores = torch.get_num_threads() if is_cpu else 1
        self.number = max(min(cores, count // LEAST_PART), 1)
        self._count = count
        self._stride = max(count // self.number, 1)  # from the beginning of a part to the next
        self.size = count - (self.number - 1) * self._stride

    def split(self, rows: Tensor) -> Tensor:
        """A view of `rows` (pairs, ...) as (..., parts, pairs of a part)."""
        parts: Tensor = rows.unfold(0, self.size, self._stride)
        return parts.transpose(0, -2)

    def write(self, rows: Tensor, values: Tensor) -> None:
        """Writes `values` (..., parts, pairs of a part) over `rows` (pairs, ...)."""
        parts = self.split(rows)
        if self.size > self._stride:
            # a pair in two parts is written once: its two values may differ in the last bit
            parts[..., -1, self._stride :].copy_(values[..., -1, self._stride :])
            parts, values = parts[..., : self._stride], values[..., : self._stride]
        parts.copy_(values)

    def join(self, values: Tensor) -> Tensor:
        """`values` (parts, pairs of a part) as (pairs,)."""
        if self.size == self._stride:
            return values.flatten()
        rows = values.new_empty(self._count)
        self.write(rows, values)
        return rows
