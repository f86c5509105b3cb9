"""How every anchor meets every box without the matrix of all their overlaps in memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

CPU_PAIRS = 131_072
"""Pairs in a block on a CPU: a few temporaries of that size fit a core's second-level cache."""
CPU_ANCHORS = 2_048
"""Anchors in a block at least: where there are many boxes, most are far from a block of so few."""
GPU_PAIRS = 16_777_216
"""Pairs in a block on a GPU: enough to fill it, 64 MiB a temporary."""


def blocks_of_pairs(anchors: Tensor, boxes: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of consecutive anchors, each with the boxes that may share an area with one of them.

    On a CPU a box is left out of a block when it does not reach into the rectangle around the
    block's anchors: then its intersection with each of them is exactly 0, whatever the order of the
    anchors, which only decides how many boxes are left out. Elsewhere finding them would be a
    wait, so every block has all boxes; under a compiler there is one block.

    Args:
        anchors: (A, 4) as (x1, y1, x2, y2).
        boxes: (M, 4).

    Yields:
        The block's place among the anchors, and the indices of its boxes in ascending order. A
        block without boxes is left out.
    """
    everything = torch.arange(len(boxes), device=boxes.device)
    if torch.compiler.is_compiling():
        yield slice(0, len(anchors)), everything
        return
    on_cpu = anchors.device.type == "cpu"
    step = max((CPU_PAIRS if on_cpu else GPU_PAIRS) // max(len(boxes), 1), 1)
    if on_cpu:
        step = max(step, CPU_ANCHORS)
    for first in range(0, len(anchors), step):
        part = slice(first, first + step)
        near = everything
        if on_cpu:
            low, high = anchors[part, :2].amin(0), anchors[part, 2:].amax(0)
            near = ((boxes[:, :2] < high) & (boxes[:, 2:] > low)).all(1).nonzero()[:, 0]
        if len(near):
            yield part, near
