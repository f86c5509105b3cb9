"""Which anchors of each pyramid level are nearest to each ground truth.

On a CPU one level after the other, of whose points most are ruled out in groups. On an accelerator
the levels of all images at once, since there it is the launches that cost.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from detloss.boxes.planes import centres
from detloss.matchers.tiles import rows_of_a_block
from detloss.tensors import from_host, sync_is_free

GROUP = 32
"""Points in a group: for the 9 nearest of 10,000 points, 313 groups and 288 points are sorted."""


def nearest(boxes: Tensor, truths: Tensor, level_sizes: Sequence[int], count: int) -> Tensor:
    """(B, M, K) the `count` anchors of each level with the centres nearest to each ground truth's.

    Of equally near ones the first; in each level in any order.

    Args:
        boxes: (B, A, 4); B is 1 on a CPU.
        truths: (B, M, 4).
        level_sizes: Anchors of each level, A together.
        count: Anchors taken of each level, all where it has fewer.
    """
    of_boxes, of_truths = centres(boxes.movedim(-1, 0)), centres(truths.movedim(-1, 0))
    if sync_is_free(boxes):
        return _level_by_level(of_boxes[:, 0], of_truths[:, 0], level_sizes, count)[None]
    return _at_once(of_boxes, of_truths, level_sizes, count)


def _at_once(points: Tensor, truths: Tensor, level_sizes: Sequence[int], count: int) -> Tensor:
    """`nearest` of points (2, B, A) and truths (2, B, M), in the launches of one level.

    The last distance that is taken of a level is the limit there; then those below it are taken,
    and the first of those that equal it.
    """
    images, size = points.shape[1:]
    counts = [min(count, of_level) for of_level in level_sizes]
    place = torch.arange(size, device=points.device, dtype=torch.int32)
    found = []
    # two planes of differences
    rows = rows_of_a_block(points, truths.shape[2], 2 * images * size)
    for some in torch.split(truths, rows, 2):
        across, down = (points[:, :, None] - some[..., None]).square_().unbind()
        squared = across + down
        last = [
            level.topk(taken, largest=False).values[..., -1:].expand_as(level)
            for level, taken in zip(
                torch.split(squared, list(level_sizes), -1), counts, strict=True
            )
            if taken
        ]
        limit = torch.cat(last, -1)
        order = torch.where(squared > limit, size, place).masked_fill_(squared < limit, -1)
        columns = [
            level.topk(taken, largest=False).indices
            for level, taken in zip(torch.split(order, list(level_sizes), -1), counts, strict=True)
        ]
        found.append(torch.cat(columns, -1))
    firsts, first = [], 0
    for of_level, taken in zip(level_sizes, counts, strict=True):
        firsts += [first] * taken
        first += of_level
    return torch.cat(found, 1) + from_host(firsts, points)


def _level_by_level(
    points: Tensor, truths: Tensor, level_sizes: Sequence[int], count: int
) -> Tensor:
    """(M, K) `nearest` of one image: points (2, A) and truths (2, M)."""
    counts = [min(count, size) for size in level_sizes]
    # written in place: small results kept between large temporaries would fragment the heap
    found = torch.empty(truths.shape[1], sum(counts), dtype=torch.long, device=points.device)
    first = column = 0
    for size, taken in zip(level_sizes, counts, strict=True):
        level = points[:, first : first + size]
        rows = rows_of_a_block(points, truths.shape[1], size)
        of_level = found[:, column : column + taken]
        for some, of_some in zip(
            torch.split(truths, rows, dim=1), torch.split(of_level, rows), strict=True
        ):
            of_some.copy_(_nearest_of_level(level, some, taken).add_(first))
        first, column = first + size, column + taken
    return found


def _nearest_of_level(points: Tensor, truths: Tensor, count: int) -> Tensor:
    """(M, count) the points (2, N) nearest to each of the truths (2, M), the first of equal ones.

    Most points are ruled out first, in groups of consecutive points. Sort the groups by their least
    distance, of equal ones the earlier first. Each of the first `count` groups has a point that
    goes before every point of the groups behind them, so the `count` nearest points lie in these
    groups.
    """
    size = points.shape[1]
    if size <= 2 * GROUP * count:
        return smallest(_squared_distances(points, truths), count)
    # points in columns of a group each, so that the least of a group is taken along the rows
    grouped = (
        pad(points, (0, -size % GROUP), value=torch.inf)
        .view(2, -1, GROUP)
        .transpose(1, 2)
        .contiguous()
    )
    squared = _squared_distances(grouped.flatten(1), truths).view(-1, *grouped.shape[1:])
    groups = smallest(squared.amin(1), count).sort(1).values
    of_groups = squared.gather(2, groups[:, None].expand(-1, GROUP, -1)).transpose(1, 2).flatten(1)
    column = smallest(of_groups, count)
    return groups.gather(1, column // GROUP) * GROUP + column % GROUP


def _squared_distances(points: Tensor, truths: Tensor) -> Tensor:
    """(M, N) of points (2, N) from truths (2, M)."""
    across, down = (points[:, None] - truths[..., None]).unbind()
    return across.square_().add_(down.square_())


def smallest(values: Tensor, count: int) -> Tensor:
    """(M, count) columns of the smallest of each row of `values` (M, N), the first of equal ones.

    `topk` alone takes any of equal ones. That matters only in a row where the last value taken
    equals the first one left out. On a CPU only these rows, which are few, are sorted out.
    """
    if count == values.shape[1]:
        return torch.arange(count, device=values.device).repeat(len(values), 1)
    ends, columns = values.topk(count + 1, largest=False)
    columns, last = columns[:, :count], ends[:, count - 1, None]
    if not sync_is_free(values):
        return _first_smallest(values, last, count)
    tied = (last == ends[:, count:]).nonzero()[:, 0]
    return columns.index_copy(0, tied, _first_smallest(values[tied], last[tied], count))


def smallest_in_order(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(M, count) the smallest of each row, in order, of equal ones the first; and their columns."""
    columns = smallest(values, count).sort(1).values
    least, order = values.gather(1, columns).sort(dim=1, stable=True)
    return least, columns.gather(1, order)


def _first_smallest(values: Tensor, last: Tensor, count: int) -> Tensor:
    """(M, count) columns of `values` (M, N) below `last` (M, 1), then the first that equal it."""
    place = torch.arange(values.shape[1], device=values.device)
    order = torch.where(values == last, place, values.shape[1])
    order = torch.where(values < last, -1, order)
    return order.topk(count, largest=False).indices
