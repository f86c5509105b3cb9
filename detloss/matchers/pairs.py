"""Which ground truths and anchors come into question for each other, and the best few of them.

On a CPU only such pairs are computed. Finding them reads values, which on an accelerator would be a
host sync, so there every ground truth meets every anchor of its image.
"""

from bisect import bisect_right
from collections.abc import Iterator

import torch
from torch import Tensor

from detloss.boxes.planes import share_area
from detloss.kernels.memory import keep_freed_memory
from detloss.matchers import tiles
from detloss.matchers.nearest import smallest_in_order
from detloss.matchers.scene import Measure, Scene, take
from detloss.tensors import sync_is_free

TILE = 64
"""Anchors in a tile, whose common rectangle is looked at before each of them."""


class Pairs:
    """Pairs of a ground truth and an anchor of its image.

    Either the pairs that come into question are listed, (P,), in the order of their ground truth,
    then of their anchor; or every ground truth of an image is paired with the same K anchors of it,
    (B, M, K).

    Args:
        rows: How many ground truths there are, R; or the range of rows that pairs may be of.
        row: (P,) or (B, M, 1), the row of each ground truth.
        anchor: (P,) or (B, 1, K), the number of each anchor.
        valid: Which pairs come into question, bool like (B, M, K); None where these are listed.
    """

    def __init__(
        self, rows: int | range, row: Tensor, anchor: Tensor, valid: Tensor | None
    ) -> None:
        self.of_rows = range(rows) if isinstance(rows, int) else rows
        self.row = row
        self.anchor = anchor
        self.valid = valid
        if valid is not None:
            self.shape = (len(self.of_rows), anchor.shape[2])
            return
        counts = torch.bincount(row - self.of_rows.start, minlength=len(self.of_rows))
        self.shape = (len(self.of_rows), int(counts.max()))
        self.first = counts.cumsum(0) - counts

    @property
    def slice_of_rows(self) -> slice:
        """The rows that pairs may be of, to index with."""
        return slice(self.of_rows.start, self.of_rows.stop)

    def table(self, values: Tensor, fill: float) -> Tensor:
        """(R, K) the values of the pairs of each ground truth, in order, `fill` elsewhere."""
        if self.valid is not None:
            return torch.where(self.valid, values, fill).reshape(self.shape)
        table = values.new_full(self.shape, fill)
        row = self.row - self.of_rows.start
        table[row, torch.arange(len(row), device=values.device) - self.first[row]] = values
        return table

    def anchors_at(self, columns: Tensor) -> Tensor:
        """(R, k) numbers of the anchors in those columns of a `table`; any where it is filled."""
        if self.valid is not None:
            of_images = columns.view(len(self.anchor), -1)
            return self.anchor[:, 0].gather(1, of_images).view_as(columns)
        place = self.first[:, None] + columns
        return self.anchor[place.clamp(max=len(self.anchor) - 1)]

    def anchors(self, scene: Scene) -> Tensor:
        """(B A,) bool, the anchors that are in a pair which comes into question."""
        found = torch.zeros(scene.images * scene.size, dtype=torch.int32, device=self.anchor.device)
        if self.valid is None:
            return found.index_fill_(0, self.anchor, 1) > 0
        valid = self.valid.expand(-1, -1, self.shape[1]).any(1).int()
        return found.scatter_(0, self.anchor.flatten(), valid.flatten()) > 0

    def rows(self) -> Tensor:
        """(R,) bool, the ground truths that are in a pair which comes into question."""
        if self.valid is not None:
            return self.valid.any(2).flatten()
        return torch.bincount(self.row - self.of_rows.start, minlength=self.shape[0]) > 0

    def cheapest(self, cost: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The pairs of least cost of each ground truth, in order; of equal ones the first.

        Args:
            cost: Of each pair, not NaN.
            count: How many to take, all where there are fewer.

        Returns:
            (R, k) the numbers of their anchors, and (R, k) their costs, inf where there are fewer.
        """
        costs, columns = smallest_in_order(self.table(cost, torch.inf), min(count, self.shape[1]))
        return self.anchors_at(columns), costs

    def write_cheapest(self, cost: Tensor, anchor: Tensor, costs: Tensor) -> None:
        """Writes what `cheapest` finds into the rows of what `Scene.nothing_chosen` gave."""
        found = self.cheapest(cost, anchor.shape[1])
        rows, taken = self.slice_of_rows, found[0].shape[1]
        anchor[rows, :taken], costs[rows, :taken] = found


def overlapping(scene: Scene, reach: Tensor, areas: Tensor) -> Pairs:
    """The pairs whose rectangles share an area; a point shares one where it lies strictly inside.

    Args:
        scene: The batch, with at least one ground truth and one anchor.
        reach: (G, A, 4) rectangle of each anchor, G = 1 or B.
        areas: (R, 4) rectangle of each ground truth.
    """
    blocks = list(blocks_of_overlapping(scene, reach, areas))
    if len(blocks) == 1:
        return blocks[0]
    row = torch.cat([block.row for block in blocks])
    return Pairs(scene.rows, row, torch.cat([block.anchor for block in blocks]), None)


def blocks_of_overlapping(scene: Scene, reach: Tensor, areas: Tensor) -> Iterator[Pairs]:
    """`overlapping`, a few ground truths at a time, so that few pairs are in memory at once."""
    truths, size = scene.truths, scene.size
    planes, areas = reach.permute(2, 0, 1), areas.t()
    if not sync_is_free(reach):
        row, anchor = scene.row_of_images, scene.anchor_of_images
        valid = share_area(planes[:, :, None], areas.view(4, scene.images, -1, 1))
        yield Pairs(scene.rows, row, anchor, valid & truths.claims[row])
        return
    keep_freed_memory()
    group = truths.image if len(reach) > 1 else torch.zeros_like(truths.image)
    planes = torch.nn.functional.pad(planes, (0, -size % TILE), value=torch.nan)
    planes = planes.view(4, len(reach), -1, TILE)  # tiles of consecutive anchors
    rectangles = _around(planes)
    of_rows = rectangles if len(reach) == 1 else rectangles[:, group]
    near = share_area(of_rows, areas[..., None])  # most tiles are far away
    near &= truths.claims[:, None]
    last = near.sum(1).mul_(TILE).cumsum(0).tolist()  # pairs up to each ground truth
    first, block = 0, tiles.CPU_PAIRS
    while first < scene.rows:
        before = last[first - 1] if first else 0
        end = max(bisect_right(last, before + block, first), first + 1)
        row, tile = near[first:end].nonzero().unbind(1)
        row = row + first
        inside = share_area(planes[:, group[row], tile], areas[:, row, None])
        place, column = inside.nonzero().unbind(1)
        row, anchor = row[place], tile[place].mul_(TILE).add_(column)
        anchor += truths.image[row] * size
        yield Pairs(range(first, end), row, anchor, None)
        first = end


def _around(planes: Tensor) -> Tensor:
    """Planes (4, G, T) of the rectangles around tiles, (4, G, T, N); NaN is left out."""
    low = planes[:2].nan_to_num(torch.inf).amin(-1)
    return torch.cat([low, planes[2:].nan_to_num(-torch.inf).amax(-1)])


def cheapest_overlapping(
    scene: Scene, reach: Tensor, areas: Tensor, cost: Measure, count: int
) -> tuple[Tensor, Tensor]:
    """`Pairs.cheapest` of the overlapping pairs, (R, count); see `overlapping`."""
    anchor, costs = scene.nothing_chosen(count)
    for pairs in blocks_of_overlapping(scene, reach, areas):
        if pairs.shape[1]:
            pairs.write_cheapest(cost(pairs.row, pairs.anchor), anchor, costs)
    return anchor, costs


def crossed(scene: Scene, candidates: Tensor) -> Iterator[Pairs]:
    """Every ground truth that may claim with every candidate (B A,) bool of its image, in blocks.

    On a CPU it is for one image.
    """
    row, anchor, claims = scene.row_of_images, scene.anchor_of_images, scene.truths.claims
    if not sync_is_free(candidates):
        yield Pairs(scene.rows, row, anchor, candidates[anchor] & claims[row])
        return
    anchor = candidates.nonzero().view(1, 1, -1)
    size = max(tiles.CPU_PAIRS // max(anchor.shape[2], 1), 1)
    for first in range(0, scene.rows, size):
        rows = range(first, min(first + size, scene.rows))
        some = row[:, rows.start : rows.stop]
        yield Pairs(rows, some, anchor, claims[some].expand(-1, -1, anchor.shape[2]))


def reaches(scene: Scene, reach: Tensor, areas: Tensor, row: Tensor, anchor: Tensor) -> Tensor:
    """Whether rectangles share an area, as `overlapping` has it, for given pairs; see `Measure`."""
    if len(reach) == 1:
        anchor = anchor % scene.size
    planes = take(reach.flatten(0, 1), anchor).movedim(-1, 0)
    return share_area(planes, take(areas, row).movedim(-1, 0))
