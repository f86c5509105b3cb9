"""How every anchor meets every box without the matrix of all their overlaps in memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

from detloss.boxes.looking import may_look
from detloss.kernels.memory import keep_freed_memory

CPU_PAIRS = 131_072
"""Pairs in a block on a CPU: a few temporaries of that size fit a core's second-level cache."""
CPU_ANCHORS = 2_048
"""Anchors in a block at least: where there are many boxes, most are far from a block of so few."""
MOST_PAIRS = 2_097_152
"""Pairs in a block on a CPU at most, 8 MiB a temporary, however many boxes there are."""
GPU_PAIRS = 16_777_216
"""Pairs in a block on a GPU: enough to fill it, 64 MiB a temporary."""


def blocks_of_pairs(anchors: Tensor, boxes: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of consecutive anchors, each with the boxes that may share an area with one of them.

    On a CPU a box is left out of a block when it does not reach into the rectangle around the
    block's anchors: then its intersection with each of them is exactly 0, whatever the order of the
    anchors, which only decides how many boxes are left out. Elsewhere finding them would be a
    wait, so every block has all boxes; under a compiler there is one block.

    Args:
        anchors: `planes` (5, A) of the anchors.
        boxes: `planes` (5, M) of the boxes.

    Yields:
        The block's place among the anchors, and the indices of its boxes in ascending order. A
        block without boxes is left out.
    """
    count, truths = anchors.shape[1], boxes.shape[1]
    if not count or not truths:
        return
    if not may_look(anchors):
        everything = torch.arange(truths, device=boxes.device)
        step = count if torch.compiler.is_compiling() else max(GPU_PAIRS // truths, 1)
        for first in range(0, count, step):
            yield slice(first, first + step), everything
        return
    step = _anchors_in_block(truths)
    low, high = _bounds(anchors, step)
    # so put that an anchor that is not a number leaves its block all boxes
    far = (boxes[:2, None] >= high[..., None]) | (boxes[2:4, None] <= low[..., None])
    near = ~far.any(0)
    for block, first in enumerate(range(0, count, step)):
        chosen = near[block].nonzero().view(-1)
        if len(chosen):
            yield slice(first, first + step), chosen


def scratch_for_pairs(anchors: Tensor, boxes: Tensor) -> Tensor | None:
    """Memory (3, pairs) for each of the blocks of `blocks_of_pairs` in turn; None off a CPU.

    On a CPU fresh memory costs more than what is done in it.
    """
    if not may_look(anchors) or not boxes.shape[1]:
        return None
    keep_freed_memory()
    rows = min(_anchors_in_block(boxes.shape[1]), anchors.shape[1])
    return anchors.new_empty(3, rows * boxes.shape[1])


def _anchors_in_block(boxes: int) -> int:
    return max(min(max(CPU_PAIRS, CPU_ANCHORS * boxes), MOST_PAIRS) // boxes, 1)


def _bounds(anchors: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """The lowest and highest corner of each block of `step` anchors, (2, blocks) each."""
    whole = anchors.shape[1] // step
    blocks = anchors[:4, : whole * step].reshape(4, whole, step)
    rest = anchors[:4, whole * step :]
    low, high = blocks[:2].amin(-1), blocks[2:].amax(-1)
    if rest.shape[1]:
        low = torch.cat([low, rest[:2].amin(1, keepdim=True)], dim=1)
        high = torch.cat([high, rest[2:].amax(1, keepdim=True)], dim=1)
    return low, high
