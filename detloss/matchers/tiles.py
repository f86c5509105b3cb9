"""How every anchor meets every box without the matrix of all their overlaps in memory.

A CPU goes over an image in `Tiles` of anchors and leaves out what is far away; there memory and
arithmetic cost. An accelerator takes all images at once, in as few launches as memory allows.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from detloss.boxes.planes import iou_of_planes, planes
from detloss.kernels.memory import keep_freed_memory
from detloss.tensors import sync_is_free

TILE = 512
"""Anchors in a tile on a CPU: few boxes reach into a small tile, but each tile costs calls."""
CPU_PAIRS = 262_144
"""Pairs in a block on a CPU: a few temporaries of that size fit a core's second-level cache."""
MOST_PAIRS = 524_288
"""Pairs of a tile on a CPU at most, 2 MiB a temporary, however many boxes there are: beyond 1,024
boxes tiles get smaller. With 5,000 boxes four times as many would take half as long again."""
GPU_PAIRS = 33_554_432
"""Pairs in a block on an accelerator, 128 MiB a temporary of float32, of which there are three.

So many pairs keep a GPU busy for 0.1 ms a launch, ten times what it takes to launch it. Only beyond
them does the number of launches grow with the batch."""

Measure = Callable[[Tensor, Tensor], Tensor]
"""Planes of boxes (4, G, K, 1) and of anchors (4, G, 1, N) -> (G, K, N) of all pairs."""


class Tiles:
    """Anchors of an image in tiles of consecutive ones, and the boxes that may reach into each.

    These are the boxes that reach into the rectangle around the tile's anchors: every other box has
    an intersection of exactly 0 with each of them. The order of the anchors decides only how many
    boxes are left out. A tile meets all boxes where there are few pairs. It is for a CPU, since it
    reads values.

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
        keep_freed_memory()
        size = max(min(TILE, MOST_PAIRS // max(self._boxes, 1), self._count), 1)
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
        if self._count == 0 or not self.boxes.any():  # a point at 0 has no area to share
            return
        count, size = self.anchors.shape[1:]
        if count * size * self._boxes <= CPU_PAIRS:  # to find the near ones would cost more
            yield torch.arange(count), torch.arange(self._boxes).expand(count, -1)
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
        """The tiles and boxes where `chosen` (tiles, M + 1) is true, a box each, like `blocks`."""
        for part in torch.split(chosen.nonzero(), max(CPU_PAIRS // self.anchors.shape[2], 1)):
            tiles, boxes = part.unbind(1)
            yield tiles, boxes[:, None]

    def pairs(self, tiles: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Planes of boxes (4, G, K, 1) and anchors (4, G, 1, size) of what `blocks` gives."""
        return self.boxes[:, boxes][..., None], self.anchors.index_select(1, tiles)[:, :, None]


def largest_of_each_anchor(
    anchors: Tensor, boxes: Tensor, measure: Measure, least: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The largest measure that each anchor has with a box, and the first box that has it.

    Args:
        anchors: (B, A, 4), finite; B is 1 on a CPU.
        boxes: (B, M, 4), M >= 1.
        measure: It is never NaN, and `least` for an anchor and a box that share no area.
        least: The least that a measure is.

    Returns:
        (B, A), and (B, A) int64; where the measure is `least` whichever box.
    """
    if not sync_is_free(anchors):
        return _largest_of_all(anchors, boxes, measure)
    tiles = Tiles(anchors[0], boxes[0])
    largest = tiles.new_zeros() + least
    index = tiles.new_zeros(dtype=torch.long)
    for chosen, near in tiles.blocks():
        values, which = measure(*tiles.pairs(chosen, near)).max(1)
        largest[chosen] = values
        index[chosen] = near.gather(1, which)
    return tiles.untiled(largest)[None], tiles.untiled(index)[None]


def _largest_of_all(anchors: Tensor, boxes: Tensor, measure: Measure) -> tuple[Tensor, Tensor]:
    """`largest_of_each_anchor` for all images at once."""
    running = Running()
    for some_boxes, all_anchors in blocks_of_boxes(anchors, boxes):
        running.add(measure(some_boxes, all_anchors))
    return running.largest, running.index


def largest_of_each_class(
    anchors: Tensor, boxes: Tensor, labels: Tensor, classes: int, measure: Measure
) -> Tensor:
    """(B, A, C) the largest measure that each anchor has with a box of each class, at least 0.

    Args:
        anchors: (B, A, 4), finite.
        boxes: (B, M, 4), M >= 1.
        labels: (B, M) int64, the class of each box, in 0..C-1.
        classes: C.
        measure: It is never NaN, and 0 for an anchor and a box that share no area.
    """
    largest = anchors.new_zeros(*anchors.shape[:2], classes)
    if sync_is_free(anchors):
        for of_image in zip(largest, anchors, boxes, labels, strict=True):
            _write_largest_of_each_class(*of_image, measure)
        return largest
    first = 0
    for some_boxes, all_anchors in blocks_of_boxes(anchors, boxes):
        values = measure(some_boxes, all_anchors).transpose(1, 2)  # (B, A, K)
        column = labels[:, None, first : first + values.shape[2]].expand_as(values)
        largest.scatter_reduce_(2, column, values, "amax")
        first += values.shape[2]
    return largest


def _write_largest_of_each_class(
    largest: Tensor, anchors: Tensor, boxes: Tensor, labels: Tensor, measure: Measure
) -> None:
    """`largest_of_each_class` of one image on a CPU, over `largest` (A, C), which is 0."""
    tiles = Tiles(anchors, boxes)
    size, label = tiles.anchors.shape[2], pad(labels, (0, 1))
    flat = largest.view(-1)
    for chosen, near in tiles.blocks():
        values = measure(*tiles.pairs(chosen, near))  # (G, K, size)
        anchor = chosen[:, None, None] * size + torch.arange(size)
        place = anchor * largest.shape[1] + label[near][..., None]
        place.clamp_(max=len(flat) - 1)  # of a point that fills up, whose measure is 0
        flat.scatter_reduce_(0, place.flatten(), values.flatten(), "amax")


class Running:
    """The largest of each anchor over several blocks of boxes, and the first box that has it.

    Attributes:
        largest: (B, A).
        index: (B, A) int64.
    """

    largest: Tensor
    index: Tensor

    def __init__(self) -> None:
        self._boxes = 0

    def add(self, measures: Tensor) -> None:
        """The measures (B, K, A) of the next block."""
        largest, index = measures.max(1)
        if self._boxes:
            larger = largest > self.largest  # so of equal ones the first stays
            largest = torch.where(larger, largest, self.largest)
            index = torch.where(larger, index + self._boxes, self.index)
        self.largest, self.index = largest, index
        self._boxes += measures.shape[1]


def blocks_of_boxes(anchors: Tensor, boxes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Planes of some boxes (4, B, K, 1) and of all anchors (4, B, 1, A), in the order of the boxes.

    In an accelerator's memory there is room for all pairs of ordinary batches: one block.

    Args:
        anchors: (B, A, 4).
        boxes: (B, M, 4).
    """
    images, count = anchors.shape[:2]
    all_anchors = anchors.movedim(-1, 0).contiguous()[:, :, None]
    for some in torch.split(boxes, rows_of_a_block(boxes, boxes.shape[1], images * count), 1):
        yield some.movedim(-1, 0)[..., None], all_anchors


def rows_of_a_block(values: Tensor, rows: int, width: int) -> int:
    """How many of the rows, each of `width` pairs, to compute at once where `values` are; >= 1."""
    if not torch.compiler.is_compiling():
        pairs = CPU_PAIRS if sync_is_free(values) else GPU_PAIRS
        rows = min(rows, pairs // max(width, 1))
    return max(rows, 1)


def most_overlapped(anchors: Tensor, boxes: Tensor, chosen: Tensor) -> Tensor:
    """(B, A) the box that each chosen anchor overlaps most, the first of equal ones.

    Args:
        anchors: (B, A, 4), finite; B is 1 on a CPU.
        boxes: (B, M, 4), M >= 1.
        chosen: (B, A) bool; the others get whichever box.
    """
    if not sync_is_free(chosen):
        return largest_of_each_anchor(anchors, boxes, iou_of_planes)[1]
    place = chosen[0].nonzero().view(-1)
    index = largest_of_each_anchor(anchors[:, place], boxes, iou_of_planes)[1]
    return torch.zeros_like(chosen, dtype=torch.long).index_copy_(1, place, index)
