"""How every anchor meets every box without the matrix of all their overlaps in memory."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from detloss.boxes.overlaps import iou_of_planes, planes
from detloss.kernels.memory import keep_freed_memory
from detloss.tensors import sync_is_free

TILE = 512
"""Anchors in a tile on a CPU: few boxes reach into a small tile, but each tile costs calls."""
CPU_PAIRS = 262_144
"""Pairs in a block on a CPU: a few temporaries of that size fit a core's second-level cache."""
MOST_PAIRS = 2_097_152
"""Pairs of a tile on a CPU at most, 8 MiB a temporary, however many boxes there are."""
GPU_PAIRS = 16_777_216
"""Pairs in a block on a GPU: enough to fill it, 64 MiB a temporary."""


class Tiles:
    """Anchors in tiles of consecutive ones, and the boxes that may share an area with each tile.

    On a CPU these are the boxes that reach into the rectangle around the tile's anchors: every
    other box has an intersection of exactly 0 with each of them. The order of the anchors decides
    only how many boxes are left out. A tile meets all boxes where there are few pairs, and where
    finding its boxes would be a host sync. Under a compiler there is one tile.

        tiles = Tiles(anchors, boxes)
        best = tiles.new_zeros()                           (tiles, size)
        for chosen, near in tiles.blocks():                tiles (G,), their boxes (G, K)
            overlap = iou(*tiles.pairs(chosen, near))      (G, K, size)
            best[chosen] = overlap.amax(1)
        tiles.untiled(best)                                (A,)

    Attributes:
        anchors: Planes (4, tiles, size) of the anchors; points fill up the last tile.
        boxes: Planes (4, M + 1) of the boxes, the last a point.
    """

    def __init__(self, anchors: Tensor, boxes: Tensor) -> None:
        """Corners of the anchors (A, 4), finite, and of the boxes (M, 4)."""
        self._count, self._boxes = len(anchors), len(boxes)
        if sync_is_free(anchors):
            keep_freed_memory()
            size = max(min(TILE, MOST_PAIRS // max(self._boxes, 1), self._count), 1)
        else:
            size = rows_of_a_block(anchors, self._count, self._boxes)
        self.anchors = planes(anchors, size).view(4, -1, size)
        self.boxes = pad(planes(boxes), (0, 1))

    def new_zeros(self, *, by_box: bool = False, dtype: torch.dtype | None = None) -> Tensor:
        """Zeros (tiles, size), one an anchor; or (tiles, M + 1), one a tile and box."""
        width = self.boxes.shape[1] if by_box else self.anchors.shape[2]
        return self.anchors.new_zeros(self.anchors.shape[1], width, dtype=dtype)

    def untiled(self, values: Tensor) -> Tensor:
        """``(tiles, size) -> (A,)``."""
        return values.reshape(-1)[: self._count]

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Tiles (G,) with their boxes (G, K), in ascending order, M where a tile has fewer.

        A tile without boxes may be left out.
        """
        if self._count == 0 or self._boxes == 0:
            return
        count, size = self.anchors.shape[1:]
        read_values = sync_is_free(self.anchors)
        if not read_values or count * size * self._boxes <= CPU_PAIRS:
            # all boxes for every tile; with so few pairs finding the near ones would cost more
            box = torch.arange(self._boxes, device=self.boxes.device)
            tile = torch.arange(count, device=box.device)
            for tiles in torch.split(tile, count if read_values else 1):
                yield tiles, box.expand(len(tiles), -1)
            return
        low, high = self.anchors[:2].amin(-1), self.anchors[2:].amax(-1)
        start, end = self.boxes[:2, None, :-1], self.boxes[2:, None, :-1]
        near = ((start < high[..., None]) & (end > low[..., None])).all(0)
        counts, tiles = near.sum(1).sort(descending=True)
        counts = counts[counts > 0]
        most = counts.tolist()
        first = 0
        while first < len(most):
            pairs_a_tile = most[first] * size
            part = slice(first, min(first + max(CPU_PAIRS // pairs_a_tile, 1), len(most)))
            filled = torch.arange(most[first]) < counts[part, None]
            its_boxes = filled.new_full(filled.shape, self._boxes, dtype=torch.long)
            its_boxes.masked_scatter_(filled, near[tiles[part]].nonzero()[:, 1])
            yield tiles[part], its_boxes
            first = part.stop

    def blocks_of(self, chosen: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The tiles and boxes where `chosen` (tiles, M + 1) is true, one box each, like `blocks`.

        For a CPU only: finding them reads values.
        """
        for part in torch.split(chosen.nonzero(), max(CPU_PAIRS // self.anchors.shape[2], 1)):
            tiles, boxes = part.unbind(1)
            yield tiles, boxes[:, None]

    def pairs(self, tiles: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Planes of boxes (4, G, K, 1) and anchors (4, G, 1, size) of what `blocks` gives."""
        return self.boxes[:, boxes][..., None], self.anchors.index_select(1, tiles)[:, :, None]


def rows_of_a_block(values: Tensor, rows: int, width: int) -> int:
    """How many of the rows, each of `width` pairs, to compute at once where `values` are; >= 1."""
    if not torch.compiler.is_compiling():
        pairs = CPU_PAIRS if sync_is_free(values) else GPU_PAIRS
        rows = min(rows, pairs // max(width, 1))
    return max(rows, 1)


def most_overlapped(anchors: Tensor, boxes: Tensor, chosen: Tensor) -> Tensor:
    """(A,) the box that each chosen anchor overlaps most, the first of equal ones; 0 elsewhere.

    Args:
        anchors: (A, 4), finite.
        boxes: (M, 4).
        chosen: (A,) bool.
    """
    # picking the chosen anchors reads values; elsewhere all are computed
    place = chosen.nonzero().view(-1) if sync_is_free(chosen) else None
    tiles = Tiles(anchors if place is None else anchors[place], boxes)
    best = tiles.new_zeros(dtype=torch.long)
    for some, near in tiles.blocks():
        overlap = iou_of_planes(*tiles.pairs(some, near))
        best[some] = near.gather(1, overlap.max(1).indices)
    if place is None:
        return torch.where(chosen, tiles.untiled(best), 0)
    return torch.zeros_like(chosen, dtype=torch.long).index_copy_(0, place, tiles.untiled(best))
