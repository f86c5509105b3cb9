"""ATSS matching: each ground truth sets its own IoU threshold, from the anchors nearest to it."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from detloss.boxes.overlaps import iou_of_planes
from detloss.matchers.base import Assigned, Matcher
from detloss.matchers.images import Images
from detloss.matchers.tiles import most_overlapped, rows_of_a_block
from detloss.registry import MATCHERS, Fraction, Positive, PositiveInt
from detloss.tensors import has_float64, sync_is_free

Convention = Literal["paper", "mmdet", "paddle"]
MARGIN = {"paper": 0.0, "mmdet": 0.01, "paddle": 1e-9}
"""Beyond which distance to each side of a ground truth a centre is inside it, in their unit."""
GROUP = 32
"""Points in a group: for the 9 nearest of 10,000 points, 313 groups and 288 points are sorted."""


@MATCHERS.register("atss")
class ATSSMatcher(Matcher):
    """A ground truth takes those of its nearest anchors whose IoU is high among them.

    The candidates of a ground truth are, on each level, the `topk` anchors whose centres are
    nearest to its own; of equally near ones the first. A candidate is selected if its centre lies
    inside the ground truth and its IoU is at least ``mean + std``: the mean and the unbiased
    standard deviation of the IoUs of all candidates of that ground truth. The deviation of a
    single candidate is 0. An anchor that several ground truths select is assigned to the one that
    it overlaps most; of equal ones to the first.

    A ground truth may keep no anchor: it may overlap nothing, select no candidate, or lose all that
    it selects to others.

    Args:
        topk: Candidates on each level; a level with fewer anchors gives them all.
        scale: Factor by which the anchors grow about their centres before IoUs are computed; 8
            for points, the squares of their strides.
        convention: "paper", or what an original does in another way. "mmdet": a centre counts as
            inside from a distance of 0.01 to each side, in the unit of the boxes. "paddle": that
            distance is 1e-9, an IoU equal to ``mean + std`` is too low, and an anchor that
            several ground truths select is assigned to the one of all that it overlaps most, even
            if that one does not select it.
        ignore_overlap: Share of a background anchor's area inside one ignore region from which
            the anchor is ignored, in [0, 1].

    Example:
        >>> anchors = torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10], [20, 0, 30, 10]])
        >>> matcher = ATSSMatcher()  # IoUs 0.75, 0.105 and 0: mean 0.285, deviation 0.406
        >>> matcher(anchors, torch.tensor([[1.0, 0, 12, 10]]), level_sizes=[3]).positive
        tensor([ True, False, False])

    Reference:
        Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via
        Adaptive Training Sample Selection", CVPR 2020, arXiv:1912.02424, algorithm 1.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"level_sizes"})

    def __init__(
        self,
        *,
        topk: PositiveInt = 9,
        scale: Positive = 1.0,
        convention: Convention = "paper",
        ignore_overlap: Fraction = 0.5,
    ) -> None:
        super().__init__()
        self.topk = topk
        self.scale = scale
        self.convention = convention
        self.ignore_overlap = ignore_overlap

    def match(self, images: Images) -> Assigned:
        """By anchors and levels alone; see `Matcher.match`."""
        boxes, truths, sizes = (
            _scaled(images.anchors, self.scale),
            images.truths,
            images.level_sizes,
        )
        assert sizes is not None
        candidates = _nearest(boxes, truths, sizes, self.topk)
        selected, overlap = self._select(boxes, truths, candidates)

        of_candidate = torch.where(selected, overlap, 0).flatten(1)
        anchor = candidates.flatten(1)
        best = boxes.new_zeros(boxes.shape[:2]).scatter_reduce(1, anchor, of_candidate, "amax")
        positive = best > 0
        wins = selected & (overlap == best.gather(1, anchor).view_as(overlap))
        nobody = truths.shape[1]
        truth = torch.arange(nobody, device=boxes.device)[:, None]
        index = torch.full_like(positive, nobody, dtype=torch.long).scatter_reduce(
            1, anchor, torch.where(wins, truth, nobody).flatten(1), "amin"
        )
        if self.convention == "paddle":
            count = torch.zeros_like(index).scatter_add(1, anchor, selected.flatten(1).long())
            index = torch.where(count > 1, most_overlapped(boxes, truths, count > 1), index)
        return Assigned(index, positive, images.in_ignore_region(self.ignore_overlap))

    def _select(self, boxes: Tensor, truths: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Which candidates each ground truth selects, and the IoU of each; it may be 0.

        Args:
            boxes: (B, A, 4).
            truths: (B, M, 4).
            candidates: (B, M, K) indices of anchors.

        Returns:
            (B, M, K) bool and (B, M, K).
        """
        truth = truths.movedim(-1, 0)[..., None]
        index = candidates.flatten(1).expand(4, -1, -1)
        anchor = boxes.movedim(-1, 0).gather(2, index).view(4, *candidates.shape)
        overlap = iou_of_planes(anchor, truth)
        # the deviation of one candidate is 0, not undefined
        correction = min(candidates.shape[2] - 1, 1)
        # the mean of equal numbers is that number, in float64, or else of their differences
        base = 0.0 if has_float64(overlap.device) else overlap[..., :1]
        exact = overlap.double() if has_float64(overlap.device) else overlap - base
        deviation = exact.std(2, keepdim=True, correction=correction)
        threshold = exact.mean(2, keepdim=True) + base + deviation
        above = overlap > threshold if self.convention == "paddle" else overlap >= threshold
        centre = _centres(anchor)
        inside = torch.minimum(centre - truth[:2], truth[2:] - centre).amin(0)
        return above & (inside > MARGIN[self.convention]), overlap


def _nearest(boxes: Tensor, truths: Tensor, level_sizes: Sequence[int], count: int) -> Tensor:
    """(B, M, K) the `count` anchors of each level with the centres nearest to each ground truth's.

    Args:
        boxes: (B, A, 4).
        truths: (B, M, 4).
        level_sizes: Anchors of each level, A together.
        count: Anchors taken of each level, all where it has fewer.
    """
    centres, of_truths = _centres(boxes.movedim(-1, 0)), _centres(truths.movedim(-1, 0))
    images, objects = truths.shape[:2]
    counts = [min(count, size) for size in level_sizes]
    # written in place: small results kept between large temporaries would fragment the heap
    nearest = torch.empty(images, objects, sum(counts), dtype=torch.long, device=boxes.device)
    first = column = 0
    for size, taken in zip(level_sizes, counts, strict=True):
        level = centres[..., first : first + size]
        rows = rows_of_a_block(boxes, objects, images * size)
        of_level = nearest[..., column : column + taken]
        for some, found in zip(
            torch.split(of_truths, rows, dim=2), torch.split(of_level, rows, dim=1), strict=True
        ):
            found.copy_(_nearest_of_level(level, some, taken).add_(first))
        first, column = first + size, column + taken
    return nearest


def _nearest_of_level(points: Tensor, truths: Tensor, count: int) -> Tensor:
    """(B, M, count) of the points (2, B, N) those nearest to each of the truths (2, B, M).

    Of equal ones the first. On a CPU most points of the one image are ruled out first, in groups of
    consecutive points. Sort the groups by their least distance, of equal ones the earlier first.
    Each of the first `count` groups has a point that goes before every point of the groups behind
    them, so the `count` nearest points lie in these groups.
    """
    images, size = points.shape[1:]
    if not sync_is_free(points) or size <= 2 * GROUP * count:
        nearest = _smallest(_squared_distances(points, truths).flatten(0, 1), count)
        return nearest.view(images, truths.shape[2], count)
    # points in columns of a group each, so that the least of a group is taken along the rows
    grouped = (
        pad(points, (0, -size % GROUP), value=torch.inf)
        .view(2, 1, -1, GROUP)
        .transpose(2, 3)
        .contiguous()
    )
    squared = _squared_distances(grouped.flatten(2), truths).view(-1, *grouped.shape[2:])
    groups = _smallest(squared.amin(1), count).sort(1).values
    of_groups = squared.gather(2, groups[:, None].expand(-1, GROUP, -1)).transpose(1, 2).flatten(1)
    column = _smallest(of_groups, count)
    return (groups.gather(1, column // GROUP) * GROUP + column % GROUP)[None]


def _squared_distances(points: Tensor, truths: Tensor) -> Tensor:
    """(B, M, N) of points (2, B, N) from truths (2, B, M)."""
    across, down = (points[:, :, None] - truths[..., None]).unbind()
    return across.square_().add_(down.square_())


def _smallest(values: Tensor, count: int) -> Tensor:
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


def _first_smallest(values: Tensor, last: Tensor, count: int) -> Tensor:
    """(M, count) columns of `values` (M, N) below `last` (M, 1), then the first that equal it."""
    place = torch.arange(values.shape[1], device=values.device)
    order = torch.where(values == last, place, values.shape[1])
    order = torch.where(values < last, -1, order)
    return order.topk(count, largest=False).indices


def _centres(planes: Tensor) -> Tensor:
    """(2, ...) x and y of the centres of `planes` (4, ...), finite like these."""
    return planes[:2] / 2 + planes[2:] / 2


def _scaled(boxes: Tensor, factor: float) -> Tensor:
    """`boxes` (..., 4), their sides times the factor about their centres."""
    if factor == 1:
        return boxes
    first, last = boxes[..., :2], boxes[..., 2:]
    centre, half = (first + last) / 2, (last - first) * (factor / 2)
    return torch.cat([centre - half, centre + half], -1)
