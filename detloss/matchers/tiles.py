"""How every anchor meets every box without the matrix of all their overlaps in memory."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from detloss.boxes.overlaps import planes
from detloss.kernels.memory import keep_freed_memory
from detloss.tensors import sync_is_free

TILE = 512
"""Anchors in a tile on a CPU: few boxes reach into a small one, large ones are few."""
CPU_PAIRS = 262_144
"""Pairs in a block on a CPU: a few temporaries of that size fit a core's second-level cache."""
MOST_PAIRS = 2_097_152
"""Pairs of a tile on a CPU at most, 8 MiB a temporary, however many boxes there are."""
GPU_PAIRS = 16_777_216
"""Pairs in a block on a GPU: enough to fill it, 64 MiB a temporary."""


class Tiles:
    """Anchors in tiles of consecutive ones, and the boxes that may share an area with each tile.

    On a CPU these are the boxes that reach into the rectangle around the tile's anchors: the
    intersection of any other with each of them is exactly 0, whatever the order of the anchors,
    which only decides how many boxes are left out. Elsewhere finding them would be a wait, so
    every tile meets all boxes; so it does where pairs are few. Under a compiler there is one tile.

    Attributes:
        anchors: Planes (4, tiles, size) of the anchors; points fill up the last tile.
        boxes: Planes (4, M + 1) of the boxes, the last a point.
    """

    def __init__(self, anchors: Tensor, boxes: Tensor) -> None:
        """Corners of the anchors (A, 4), finite, and of the boxes (M, 4)."""
        self._count, self._boxes = len(anchors), len(boxes)
        size = self._count
        if sync_is_free(anchors):
            keep_freed_memory()
            size = min(TILE, MOST_PAIRS // max(self._boxes, 1), size)
        elif not torch.compiler.is_compiling():
            size = min(GPU_PAIRS // max(self._boxes, 1), size)
        size = max(size, 1)
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
        if not self._count or not self._boxes:
            return
        count, size = self.anchors.shape[1:]
        look = sync_is_free(self.anchors)
        if not look or count * size * self._boxes <= CPU_PAIRS:  # so few that looking costs more
            box = torch.arange(self._boxes, device=self.boxes.device)
            for tiles in torch.split(torch.arange(count, device=box.device), count if look else 1):
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
        """The same of the tiles and boxes where `chosen` (tiles, M + 1) is true, one box each.

        On a CPU only: finding them is a look.
        """
        for part in torch.split(chosen.nonzero(), max(CPU_PAIRS // self.anchors.shape[2], 1)):
            tiles, boxes = part.unbind(1)
            yield tiles, boxes[:, None]

    def pairs(self, tiles: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Planes of boxes (4, G, K, 1) and anchors (4, G, 1, size) of what `blocks` gives."""
        return self.boxes[:, boxes][..., None], self.anchors.index_select(1, tiles)[:, :, None]
