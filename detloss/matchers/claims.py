"""How ground truths choose anchors by what is predicted there: candidates, the best few, one each.

    Scene                 a batch as rows of ground truths and a flat list of anchors
      overlapping         the pairs of ground truth and anchor that come into question
      Pairs.cheapest      the best few of each ground truth
      contest             an anchor that several have chosen goes to one of them
    Assigned              of each image

On a CPU only the pairs that come into question are computed. Finding them reads values, which on an
accelerator would be a host sync, so there every ground truth meets every anchor of its image. The
number of calls does not depend on the number of images.
"""

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from detloss.boxes import paired_overlap
from detloss.boxes.overlaps import iou_of_planes
from detloss.kernels.memory import keep_freed_memory
from detloss.matchers import tiles
from detloss.matchers.base import Assigned, Matcher, of_one_kind
from detloss.matchers.images import Images, Losses
from detloss.matchers.nearest import centres, smallest_in_order
from detloss.matchers.regions import finite_only
from detloss.registry import Fraction
from detloss.tensors import sync_is_free, widen

TILE = 64
"""Anchors in a tile, whose common rectangle is looked at before each of them."""
Measure = Callable[[Tensor, Tensor], Tensor]
"""A value of each pair, from the rows of its ground truth and the number of its anchor."""


class Truths(NamedTuple):
    """The ground truths of all images, M each, a row each: R = B M.

    Attributes:
        boxes: (R, 4).
        image: (R,) image of each row.
        claims: (R,) bool, whether it may claim anchors: it is no ignore region and has an area.
        labels: (R,) class of each row; None where the matcher does not look at them.
    """

    boxes: Tensor
    image: Tensor
    claims: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class Scene:
    """B images with A anchors each; anchor a of image i is number ``i A + a``.

    Attributes:
        images: B.
        anchors: (G, A, 4), G = 1 where the images share them, else B.
        truths: The ground truths.
        class_logits: (B A, C), or None where the matcher does not look at them.
        pred_boxes: (B A, 4), those that are not finite shrunk to a point, or None.
        objectness: (B A,), or None.
        level_sizes: Anchors of each pyramid level, or None.
        losses: What tells the losses of anchors, or None.
    """

    images: int
    anchors: Tensor
    truths: Truths
    class_logits: Tensor | None = None
    pred_boxes: Tensor | None = None
    objectness: Tensor | None = None
    level_sizes: Sequence[int] | None = None
    losses: Losses | None = None

    @classmethod
    def of(cls, images: Images) -> "Scene":
        """The same images, flat."""
        count, most = images.truths.shape[:2]
        boxes = images.truths.flatten(0, 1)
        image = torch.arange(count, device=boxes.device)[:, None].expand(-1, most).flatten()
        claims = (boxes[:, 2:] > boxes[:, :2]).all(1)
        labels = None if images.labels is None else images.labels.long().flatten()
        shared = images.anchors.stride(0) == 0
        predicted, logits, objectness = images.pred_boxes, images.class_logits, images.objectness
        return cls(
            images=count,
            anchors=images.anchors[:1] if shared else images.anchors,
            truths=Truths(boxes, image, claims, labels),
            class_logits=None if logits is None else logits.flatten(0, 1),
            pred_boxes=None if predicted is None else finite_only(widen(predicted)).flatten(0, 1),
            objectness=None if objectness is None else objectness.flatten(),
            level_sizes=images.level_sizes,
            losses=images.losses,
        )

    def having(self, truths: Truths) -> "Scene":
        """The same images with other ground truths."""
        return Scene(
            images=self.images,
            anchors=self.anchors,
            truths=truths,
            class_logits=self.class_logits,
            pred_boxes=self.pred_boxes,
            objectness=self.objectness,
            level_sizes=self.level_sizes,
            losses=self.losses,
        )

    @property
    def size(self) -> int:
        """A."""
        return self.anchors.shape[1]

    @property
    def rows(self) -> int:
        """R."""
        return len(self.truths.boxes)

    @property
    def most(self) -> int:
        """M."""
        return self.rows // self.images

    def boxes_at(self, anchor: Tensor) -> Tensor:
        """The anchors of those numbers as boxes (..., 4)."""
        if len(self.anchors) == 1:
            anchor = anchor % self.size
        return take(self.anchors.flatten(0, 1), anchor)

    def nothing_chosen(self, count: int) -> tuple[Tensor, Tensor]:
        """(R, count) numbers of anchors, to be filled, and their costs, inf.

        Written in place: small results kept between large temporaries would fragment the heap.
        """
        costs = self.anchors.new_full((self.rows, count), torch.inf)
        return torch.zeros_like(costs, dtype=torch.long), costs

    @property
    def row_of_images(self) -> Tensor:
        """(B, M, 1) the rows of the ground truths."""
        return self.every_row.view(self.images, -1, 1)

    @property
    def anchor_of_images(self) -> Tensor:
        """(B, 1, A) the numbers of the anchors."""
        count = self.images * self.size
        return torch.arange(count, device=self.anchors.device).view(self.images, 1, -1)

    @property
    def every_row(self) -> Tensor:
        """(R, 1) the rows of the ground truths."""
        return torch.arange(self.rows, device=self.anchors.device)[:, None]

    @property
    def centres(self) -> Tensor:
        """(G, A, 4) centres of the anchors, as boxes without a side."""
        return as_points(self.anchors)

    def owned(self, owner: Tensor) -> Tensor:
        """(P,) numbers of the anchors with an owner below R; all where it would be a host sync."""
        if sync_is_free(owner):
            return (owner < self.rows).nonzero().view(-1)
        return torch.arange(len(owner), device=owner.device)

    @property
    def level(self) -> Tensor:
        """(B A,) pyramid level of each anchor."""
        assert self.level_sizes is not None
        like = self.truths.image
        levels = [like.new_full((size,), level) for level, size in enumerate(self.level_sizes)]
        return torch.cat(levels).repeat(self.images)

    def losses_of(self, owner: Tensor) -> Tensor:
        """(B A,) the loss that each anchor would have with its owner, 0 without; inf for NaN."""
        assert self.losses is not None
        shape = (self.images, self.size)
        index, positive = (owner % self.most).view(shape), (owner < self.rows).view(shape)
        return self.losses(index, positive).flatten().nan_to_num(torch.inf)

    def overlap(self, row: Tensor, anchor: Tensor, kind: str) -> Tensor:
        """The overlap of predicted boxes with ground truths, at least 0; see `Measure`."""
        assert self.pred_boxes is not None
        if kind == "iou":  # the same to the bit, in fewer passes
            predicted, truth = take(self.pred_boxes, anchor), take(self.truths.boxes, row)
            return iou_of_planes(predicted.movedim(-1, 0), truth.movedim(-1, 0)).clamp_(min=0)
        shape = (row + anchor).shape
        predicted = take(self.pred_boxes, anchor).expand(*shape, 4)
        truth = take(self.truths.boxes, row).expand(*shape, 4)
        return paired_overlap(predicted, truth, kind=kind).clamp(min=0)

    def overlaps(self, kind: str) -> Measure:
        """`overlap` of that kind, for a matcher that asks again and again.

        Where every ground truth meets every anchor, all are computed at once and then looked up.
        """
        if sync_is_free(self.anchors):
            return partial(self.overlap, kind=kind)
        every = self.overlap(self.row_of_images, self.anchor_of_images, kind).flatten()

        def overlap_of(row: Tensor, anchor: Tensor) -> Tensor:
            return every[row * self.size + anchor % self.size]

        return overlap_of

    def anchor_overlap(self, row: Tensor, anchor: Tensor) -> Tensor:
        """The IoU of anchors with ground truths; see `Measure`."""
        shape = (*(row + anchor).shape, 4)
        truths = take(self.truths.boxes, row)
        return paired_overlap(self.boxes_at(anchor).expand(shape), truths.expand(shape))

    def logit(self, row: Tensor, anchor: Tensor) -> Tensor:
        """The class logits of anchors for the labels of ground truths; see `Measure`."""
        assert self.class_logits is not None
        assert self.truths.labels is not None
        classes = self.class_logits.shape[1]
        label = self.truths.labels[row].clamp(0, classes - 1)  # an ignore region may have any
        return widen(self.class_logits.flatten()[anchor * classes + label])


class Owners(NamedTuple):
    """The ground truth that each anchor goes to.

    Attributes:
        row: (B A,) its row, R for none.
        score: (B A,) the matcher's own measure of positives, or None.
        pairs: Of each image, as in `Assigned`.
        is_pair: Of each image, as in `Assigned`.
    """

    row: Tensor
    score: Tensor | None = None
    pairs: Sequence[Tensor] | None = None
    is_pair: Sequence[Tensor] | None = None


class Pairs:
    """Pairs of a ground truth and an anchor of its image.

    Either the pairs that come into question are listed, (P,), in the order of their ground truth,
    then of their anchor; or every ground truth of an image is paired with the same K anchors of it,
    (B, M, K).

    Args:
        rows: The rows of the ground truths, R, that pairs may be of.
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
    """The same for some ground truths after the other, so that few pairs are in memory at once."""
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


def as_points(boxes: Tensor) -> Tensor:
    """(..., 4) the centres of boxes, as boxes without a side."""
    middle = centres(boxes.movedim(-1, 0)).movedim(0, -1)
    return torch.cat([middle, middle], -1)


def take(boxes: Tensor, index: Tensor) -> Tensor:
    """(..., 4) boxes of that index (...), each coordinate contiguous."""
    return boxes.t()[:, index].movedim(0, -1)


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


class Contest:
    """Who gets an anchor that several have chosen: the highest priority, of equal ones the first.

    Attributes:
        owner: (B A,) the ground truth that each anchor goes to, R for none.
        best: (B A,) its priority, -inf for none.
    """

    def __init__(self, scene: Scene) -> None:
        count, like = scene.images * scene.size, scene.anchors
        self.rows = scene.rows
        self.owner = torch.full((count,), scene.rows, device=like.device)
        self.best = like.new_full((count,), -torch.inf)

    def add(self, row: Tensor, anchor: Tensor, chosen: Tensor, priority: Tensor) -> None:
        """Some ground truths take part, all of them behind those before.

        Args:
            row: Rows of ground truths.
            anchor: Numbers of anchors, in a shape that `row` broadcasts with.
            chosen: Whether the ground truth has chosen that anchor, bool.
            priority: Like `chosen`, not NaN where chosen.
        """
        flat = anchor.expand_as(chosen).flatten()
        value = torch.where(chosen, priority, -torch.inf).flatten().to(self.best.dtype)
        best = torch.full_like(self.best, -torch.inf).scatter_reduce_(0, flat, value, "amax")
        wins = chosen.flatten() & (value == best[flat])
        row = torch.where(wins, row.expand_as(chosen).flatten(), self.rows)
        better = best > self.best  # of equal ones those before stay
        self.owner.masked_fill_(better, self.rows).scatter_reduce_(
            0, flat, torch.where(better[flat], row, self.rows), "amin"
        )
        torch.maximum(best, self.best, out=self.best)


def contest(scene: Scene, row: Tensor, anchor: Tensor, chosen: Tensor, priority: Tensor) -> Tensor:
    """(B A,) the ground truth that each anchor goes to, R for none; see `Contest`."""
    held = Contest(scene)
    held.add(row, anchor, chosen, priority)
    return held.owner


def first_to_choose(scene: Scene, row: Tensor, anchor: Tensor, chosen: Tensor) -> Tensor:
    """(B A,) the first ground truth that has chosen each anchor, R for none; see `Contest.add`."""
    row = torch.where(chosen, row, scene.rows).flatten()
    nobody = row.new_full((scene.images * scene.size,), scene.rows)
    return nobody.scatter_reduce_(0, anchor.expand_as(chosen).flatten(), row, "amin")


def give_to_best_of_all(
    scene: Scene, owner: Tensor, anchor: Tensor, chosen: Tensor, priority: Measure
) -> Tensor:
    """`owner`, but an anchor that several have chosen goes to the first of highest priority.

    It is that of all ground truths of its image, whether they have chosen it or not.

    Args:
        scene: The batch.
        owner: (B A,) what `contest` says.
        anchor: (R, k) as `contest` takes it.
        chosen: (R, k) as `contest` takes it.
        priority: Of the ground truths (e, m) and anchors (e, 1), not NaN; -inf for a ground truth
            that it cannot go to.
    """
    flat = anchor.flatten()
    count = torch.zeros_like(owner).scatter_add(0, flat, chosen.flatten().long())
    if sync_is_free(count):
        flat = (count > 1).nonzero().view(-1)
    place = torch.arange(scene.most, device=anchor.device)
    for some in torch.split(flat, tiles.rows_of_a_block(scene.anchors, len(flat), scene.most)):
        row = (some // scene.size * scene.most)[:, None] + place
        values = torch.where(scene.truths.claims[row], priority(row, some[:, None]), -torch.inf)
        highest = values.amax(1, keepdim=True)
        best = torch.where((values == highest) & (highest > -torch.inf), row, scene.rows).amin(1)
        best = torch.where((count[some] > 1) & (best < scene.rows), best, owner[some])
        owner = owner.scatter(0, some, best)
    return owner


def rank_in_row(row: Tensor, values: Tensor) -> Tensor:
    """(P,) how many of the same row come before each: larger values, of equal ones the first."""
    order = values.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    sorted_row = row[order]
    place = torch.arange(len(row), device=row.device)
    rank = place - torch.searchsorted(sorted_row, sorted_row)
    return torch.empty_like(place).scatter_(0, order, rank)


class ClaimMatcher(Matcher):
    """A matcher whose ground truths choose anchors; a subclass implements `owners`.

    A ground truth that is an ignore region, or has no area, claims nothing.
    """

    ignore_overlap: Fraction = 0.5

    @abstractmethod
    def owners(self, scene: Scene) -> Owners:
        """The ground truth of each anchor."""
        raise NotImplementedError

    def match(self, images: Images) -> Assigned:
        """See `Matcher.match`."""
        scene = Scene.of(images)
        found = self.owners(scene)
        shape = (scene.images, scene.size)
        return Assigned(
            target_index=(found.row % scene.most).view(shape),
            positive=(found.row < scene.rows).view(shape),
            ignored=images.in_ignore_region(self.ignore_overlap),
            score=None if found.score is None else found.score.view(shape),
            pairs=found.pairs,
            is_pair=found.is_pair,
        )

    def _takes_batch(self, anchors: Sequence[Tensor], gt_boxes: Sequence[Tensor]) -> bool:
        # on a CPU too: few pairs are computed in any case
        return not torch.compiler.is_compiling() and of_one_kind(anchors, gt_boxes)


def share_area(a: Tensor, b: Tensor) -> Tensor:
    """Whether rectangles overlap, from planes (4, ...)."""
    return (a[0] < b[2]) & (a[2] > b[0]) & (a[1] < b[3]) & (a[3] > b[1])
