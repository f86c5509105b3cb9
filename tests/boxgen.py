"""Boxes for tests: hypothesis strategies and seeded tensors."""

import torch
from hypothesis import strategies as st
from torch import Tensor


def random_boxes(
    count: int, *, seed: int = 0, extent: float = 100.0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """(count, 4) well-formed boxes, corners within +-extent, sides 1 % to half of extent."""
    generator = torch.Generator().manual_seed(seed)
    corner = (torch.rand(count, 2, generator=generator, dtype=torch.float64) * 2 - 1) * extent
    size = (torch.rand(count, 2, generator=generator, dtype=torch.float64) * 0.49 + 0.01) * extent
    return torch.cat([corner, corner + size], dim=-1).to(dtype)


@st.composite
def box_pairs(draw: st.DrawFn, max_boxes: int = 8) -> tuple[Tensor, Tensor]:
    """Two float64 tensors (N, 4) of well-formed boxes, N at least 1."""
    count = draw(st.integers(1, max_boxes))
    seed = draw(st.integers(0, 2**31))
    return random_boxes(count, seed=seed), random_boxes(count, seed=seed + 1)


BINS = 8


def rows_in(space: str, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """What a box loss in that space takes, made of any two (N, 4): bins get logits (N, 4, BINS)
    within +-2, and distances in their range.
    """
    if space != "bins":
        return pred, target
    turns = torch.arange(BINS, dtype=pred.dtype)
    return 2 * (pred[..., None] + turns).sin(), target.remainder(BINS - 1)
