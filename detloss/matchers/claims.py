"""How ground truths choose anchors by what is predicted there: candidates, the best few, one each.

    Scene                 a batch as rows of ground truths and a flat list of anchors
      overlapping         the pairs of ground truth and anchor that come into question
      Pairs.cheapest      the best few of each ground truth
      contest             an anchor that several have chosen goes to one of them
    list[Matches]         of each image

On a CPU only the pairs that come into question are computed. Finding them reads values, which on an
accelerator would be a host sync, so there every ground truth meets every anchor of its image. The
number of calls does not depend on the number of images.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from detloss.boxes import paired_overlap
from detloss.matchers import tiles
from detloss.matchers.atss import _smallest as smallest
from detloss.matchers.base import Matcher, Matches, check_match_inputs, check_one_an_image
from detloss.matchers.regions import finite_only, in_ignore_region
from detloss.registry import Fraction
from detloss.tensors import sync_is_free, widen

TILE = 64
"""Anchors in a tile, whose common rectangle is looked at before each of them."""
Measure = Callable[[Tensor, Tensor], Tensor]
"""A value of each pair, from the rows of its ground truth and the number of its anchor."""


class Truths(NamedTuple):
    """The R ground truths of all images, a row each.

    Attributes:
        boxes: (R, 4), finite.
        image: (R,) image of each row.
        place: (R,) which of its image's it is.
        claims: (R,) bool, whether it may claim anchors: it is no ignore region and has an area.
        labels: (R,) class of each row; None where the caller gave none.
        counts: Rows of each image.
    """

    boxes: Tensor
    image: Tensor
    place: Tensor
    claims: Tensor
    labels: Tensor | None
    counts: list[int]


class Scene(NamedTuple):
    """B images with A anchors each; anchor a of image i is number ``i A + a``.

    Attributes:
        anchors: (G, A, 4), finite, G = 1 where the images share them, else B.
        truths: The ground truths.
        images: B.
        class_logits: (B A, C), or None where the matcher does not look at them.
        pred_boxes: (B A, 4), finite, or None.
        objectness: (B A,), or None.
        level_sizes: Anchors of each level, or None.
    """

    anchors: Tensor
    truths: Truths
    images: int
    class_logits: Tensor | None
    pred_boxes: Tensor | None
    objectness: Tensor | None
    level_sizes: Sequence[int] | None

    @property
    def size(self) -> int:
        """A."""
        return self.anchors.shape[1]

    @property
    def rows(self) -> int:
        """R."""
        return len(self.truths.boxes)

    @property
    def centres(self) -> Tensor:
        """(G, A, 4) centres of the anchors, as boxes without a side."""
        centres = self.anchors[..., :2] / 2 + self.anchors[..., 2:] / 2
        return torch.cat([centres, centres], -1)

    def overlap(self, row: Tensor, anchor: Tensor, kind: str) -> Tensor:
        """The overlap of predicted boxes with ground truths, at least 0; see `Measure`."""
        assert self.pred_boxes is not None
        shape = (row + anchor).shape
        predicted = take(self.pred_boxes, anchor).expand(*shape, 4)
        truth = take(self.truths.boxes, row).expand(*shape, 4)
        return paired_overlap(predicted, truth, kind=kind).clamp(min=0)

    def logit(self, row: Tensor, anchor: Tensor) -> Tensor:
        """The class logits of anchors for the labels of ground truths; see `Measure`."""
        assert self.class_logits is not None
        assert self.truths.labels is not None
        classes = self.class_logits.shape[1]
        label = self.truths.labels[row].clamp(0, classes - 1)  # an ignore region may have any
        return widen(self.class_logits.flatten()[anchor * classes + label])


class Assigned(NamedTuple):
    """The ground truth of each anchor.

    Attributes:
        row: (B A,) its row, R for none.
        score: (B A,) the matcher's own measure of positives, 0 elsewhere, or None.
    """

    row: Tensor
    score: Tensor | None = None


class Pairs:
    """Pairs of a ground truth and an anchor of its image.

    Either the pairs that come into question are listed, (P,), in the order of their ground truth,
    then of their anchor; or every ground truth is paired with every anchor of its image, (R, A).

    Args:
        rows: R.
        row: (P,) or (R, 1), the row of each ground truth.
        anchor: (P,) or (R, A), the number of each anchor.
        valid: (R, A) bool, which pairs come into question; None where these are listed.
    """

    def __init__(self, rows: int, row: Tensor, anchor: Tensor, valid: Tensor | None) -> None:
        self.row = row
        self.anchor = anchor
        self.valid = valid
        if valid is not None:
            self.shape = (rows, anchor.shape[1])
            return
        counts = torch.bincount(row, minlength=rows)
        self.shape = (rows, int(counts.max()))
        self.first = counts.cumsum(0) - counts

    def table(self, values: Tensor, fill: float) -> Tensor:
        """(R, K) the values of the pairs of each ground truth, in order, `fill` elsewhere."""
        if self.valid is not None:
            return torch.where(self.valid, values, fill)
        table = values.new_full(self.shape, fill)
        column = torch.arange(len(self.row), device=values.device) - self.first[self.row]
        table[self.row, column] = values
        return table

    def anchors_at(self, columns: Tensor) -> Tensor:
        """(R, k) numbers of the anchors in those columns of a `table`; any where it is filled."""
        if self.valid is not None:
            return self.anchor.gather(1, columns)
        place = self.first[:, None] + columns
        return self.anchor[place.clamp(max=len(self.anchor) - 1)]

    def cheapest(self, cost: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The pairs of least cost of each ground truth, in order; of equal ones the first.

        Args:
            cost: Of each pair, not NaN.
            count: How many to take, all where there are fewer.

        Returns:
            (R, k) the numbers of their anchors, and (R, k) their costs, inf where there are fewer.
        """
        table = self.table(cost, torch.inf)
        columns = smallest(table, min(count, self.shape[1])).sort(1).values
        costs, order = table.gather(1, columns).sort(dim=1, stable=True)
        return self.anchors_at(columns.gather(1, order)), costs


def overlapping(scene: Scene, reach: Tensor, areas: Tensor) -> Pairs:
    """The pairs whose rectangles share an area; a point shares one where it lies strictly inside.

    Args:
        scene: The batch, with at least one ground truth and one anchor.
        reach: (G, A, 4) rectangle of each anchor, G = 1 or B.
        areas: (R, 4) rectangle of each ground truth.
    """
    truths, size = scene.truths, scene.size
    group = truths.image if len(reach) > 1 else torch.zeros_like(truths.image)
    planes, areas = reach.permute(2, 0, 1), areas.t()
    if not sync_is_free(reach):
        anchor = truths.image[:, None] * size + torch.arange(size, device=reach.device)
        valid = _share_area(planes[:, group], areas[..., None]) & truths.claims[:, None]
        row = torch.arange(scene.rows, device=reach.device)[:, None]
        return Pairs(scene.rows, row, anchor, valid)
    planes = torch.nn.functional.pad(planes, (0, -size % TILE), value=torch.nan)
    planes = planes.view(4, len(reach), -1, TILE)  # tiles of consecutive anchors
    low, high = planes[:2].nan_to_num(torch.inf), planes[2:].nan_to_num(-torch.inf)
    rectangles = torch.cat([low.amin(-1), high.amax(-1)])
    near = _share_area(rectangles[:, group], areas[..., None])  # most tiles are far away
    rows, anchors = [], []
    for part in torch.split(
        (near & truths.claims[:, None]).nonzero(), tiles.CPU_PAIRS // TILE or 1
    ):
        row, tile = part.unbind(1)
        inside = _share_area(planes[:, group[row], tile], areas[:, row, None])
        place, column = inside.nonzero().unbind(1)
        rows.append(row[place])
        anchors.append(truths.image[rows[-1]] * size + tile[place] * TILE + column)
    return Pairs(scene.rows, torch.cat(rows), torch.cat(anchors), None)


def take(boxes: Tensor, index: Tensor) -> Tensor:
    """(..., 4) boxes of that index (...), each coordinate contiguous."""
    return boxes.t()[:, index].movedim(0, -1)


def reaches(scene: Scene, reach: Tensor, areas: Tensor, row: Tensor, anchor: Tensor) -> Tensor:
    """Whether rectangles share an area, as `overlapping` has it, for given pairs; see `Measure`."""
    if len(reach) == 1:
        anchor = anchor % scene.size
    planes = take(reach.flatten(0, 1), anchor).movedim(-1, 0)
    return _share_area(planes, take(areas, row).movedim(-1, 0))


def contest(scene: Scene, anchor: Tensor, chosen: Tensor, priority: Tensor) -> Tensor:
    """(B A,) the ground truth that each anchor goes to, R for none.

    Of several that have chosen it, it is the one of highest priority, of equal ones the first.

    Args:
        scene: The batch.
        anchor: (R, k) numbers of anchors.
        chosen: (R, k) bool, whether the row's ground truth has chosen it.
        priority: (R, k), not NaN where chosen.
    """
    rows, count = scene.rows, scene.images * scene.size
    row = torch.arange(rows, device=anchor.device)[:, None].expand_as(anchor)
    priority = torch.where(chosen, priority, -torch.inf)
    best = priority.new_full((count,), -torch.inf)
    best = best.scatter_reduce(0, anchor.flatten(), priority.flatten(), "amax")
    wins = torch.where(chosen & (priority == best[anchor]), row, rows)
    return row.new_full((count,), rows).scatter_reduce(0, anchor.flatten(), wins.flatten(), "amin")


def give_to_best_of_all(
    scene: Scene, owner: Tensor, anchor: Tensor, chosen: Tensor, overlap: Measure
) -> Tensor:
    """`owner`, but an anchor that several have chosen goes to the ground truth of its image that
    overlaps it most, the first of equal ones, whether that had chosen it or not.

    Args:
        scene: The batch.
        owner: (B A,) what `contest` says.
        anchor: As `contest` takes it.
        chosen: As `contest` takes it.
        overlap: Of the ground truths (e, m) and anchors (e, 1), not NaN; 0 is never the most.
    """
    flat = anchor.flatten()
    count = torch.zeros_like(owner).scatter_add(0, flat, chosen.flatten().long())
    if sync_is_free(count):
        flat = (count > 1).nonzero().view(-1)
    counts = torch.tensor(scene.truths.counts, device=anchor.device)
    ends, most = counts.cumsum(0), max(scene.truths.counts)
    for some in torch.split(flat, tiles.rows_of_a_block(scene.anchors, len(flat), most)):
        image = some // scene.size
        row = (ends - counts)[image, None] + torch.arange(most, device=some.device)
        real = row < ends[image, None]
        row = row.clamp(max=scene.rows - 1)
        values = overlap(row, some[:, None])
        values = torch.where(real & scene.truths.claims[row], values, 0)
        highest = values.amax(1, keepdim=True)
        best = torch.where((values == highest) & (highest > 0), row, scene.rows).amin(1)
        best = torch.where((count[some] > 1) & (best < scene.rows), best, owner[some])
        owner = owner.scatter(0, some, best)
    return owner


class ClaimMatcher(Matcher):
    """A matcher whose ground truths choose anchors; a subclass implements `assign` for a batch.

    A ground truth that is an ignore region, or has no area, claims nothing.
    """

    ignore_overlap: Fraction = 0.5

    @abstractmethod
    def assign(self, scene: Scene) -> Assigned:
        """The ground truth of each anchor of a batch that has ground truths and anchors."""
        raise NotImplementedError

    def forward(
        self,
        anchors: Tensor,
        gt_boxes: Tensor,
        *,
        gt_labels: Tensor | None = None,
        gt_ignore: Tensor | None = None,
        level_sizes: Sequence[int] | None = None,
        class_logits: Tensor | None = None,
        pred_boxes: Tensor | None = None,
        objectness: Tensor | None = None,
    ) -> Matches:
        """See `Matcher.forward`."""
        return self.batch(
            [anchors],
            [gt_boxes],
            gt_labels=None if gt_labels is None else [gt_labels],
            gt_ignore=[gt_ignore],
            level_sizes=level_sizes,
            class_logits=None if class_logits is None else class_logits[None],
            pred_boxes=None if pred_boxes is None else pred_boxes[None],
            objectness=None if objectness is None else objectness[None],
        )[0]

    @torch.no_grad()
    def batch(
        self,
        anchors: Sequence[Tensor],
        gt_boxes: Sequence[Tensor],
        *,
        gt_labels: Sequence[Tensor] | None = None,
        gt_ignore: Sequence[Tensor | None] | None = None,
        level_sizes: Sequence[int] | None = None,
        class_logits: Tensor | None = None,
        pred_boxes: Tensor | None = None,
        objectness: Tensor | None = None,
    ) -> list[Matches]:
        """The matches of B images at once; see `Matcher.batch`."""
        images = len(gt_boxes)
        flags = [None] * images if gt_ignore is None else gt_ignore
        given = {"class_logits": class_logits, "pred_boxes": pred_boxes, "objectness": objectness}
        check_one_an_image(images, anchors=anchors, gt_labels=gt_labels, gt_ignore=flags, **given)
        for name, value in {**given, "gt_labels": gt_labels}.items():
            if name in self.needs and value is None:
                raise ValueError(f"matcher {self.type_name} needs {name}, got None")
        for some, boxes, ignore in zip(anchors, gt_boxes, flags, strict=True):
            check_match_inputs(some, boxes, ignore)
        shared = all(some is anchors[0] for some in anchors)
        stacked = widen(anchors[0][None] if shared else torch.stack(list(anchors)))
        scene = Scene(
            anchors=finite_only(stacked.flatten(0, 1)).view_as(stacked),
            truths=_truths(gt_boxes, flags, gt_labels, stacked.dtype),
            images=images,
            class_logits=None if class_logits is None else class_logits.flatten(0, 1),
            pred_boxes=None if pred_boxes is None else finite_only(widen(pred_boxes.flatten(0, 1))),
            objectness=None if objectness is None else objectness.flatten(),
            level_sizes=level_sizes,
        )
        found = self.assign(scene) if scene.rows and scene.size else self._nothing(scene)
        return self._matches(scene, found, gt_boxes, flags)

    def _nothing(self, scene: Scene) -> Assigned:
        """What is assigned where there are no ground truths or no anchors."""
        row = torch.zeros(scene.images * scene.size, dtype=torch.long, device=scene.anchors.device)
        return Assigned(row, row.to(scene.anchors.dtype) if self.scores else None)

    def _matches(
        self,
        scene: Scene,
        found: Assigned,
        gt_boxes: Sequence[Tensor],
        gt_ignore: Sequence[Tensor | None],
    ) -> list[Matches]:
        """The matches of each image."""
        shape = (scene.images, scene.size)
        positive = (found.row < scene.rows).view(shape)
        places = torch.cat([scene.truths.place, scene.truths.place.new_zeros(1)])
        ignored = [
            in_ignore_region(anchors, boxes, flags, self.ignore_overlap) & ~positive[image]
            for image, (anchors, boxes, flags) in enumerate(
                zip(scene.anchors.expand(scene.images, -1, -1), gt_boxes, gt_ignore, strict=True)
            )
        ]
        scores = [None] * scene.images if found.score is None else found.score.view(shape)
        of_images = zip(places[found.row].view(shape), positive, ignored, scores, strict=True)
        return [Matches(*of_image) for of_image in of_images]


def _truths(
    gt_boxes: Sequence[Tensor],
    gt_ignore: Sequence[Tensor | None],
    gt_labels: Sequence[Tensor] | None,
    dtype: torch.dtype,
) -> Truths:
    """The ground truths of all images in one table."""
    counts = [len(boxes) for boxes in gt_boxes]
    device = gt_boxes[0].device
    images = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    index = torch.cat([torch.arange(count) for count in counts])
    boxes = torch.cat([widen(some) for some in gt_boxes])
    boxes = finite_only(boxes.to(torch.promote_types(dtype, boxes.dtype)))
    claims = (boxes[:, 2:] > boxes[:, :2]).all(1)
    if any(flags is not None for flags in gt_ignore):
        claims &= ~torch.cat(
            [
                torch.zeros(count, dtype=torch.bool, device=device) if flags is None else flags
                for count, flags in zip(counts, gt_ignore, strict=True)
            ]
        )
    labels = None if gt_labels is None else torch.cat(list(gt_labels)).long()
    return Truths(boxes, images.to(device), index.to(device), claims, labels, counts)


def _share_area(a: Tensor, b: Tensor) -> Tensor:
    """Whether rectangles overlap, from planes (4, ...)."""
    return (a[0] < b[2]) & (a[2] > b[0]) & (a[1] < b[3]) & (a[3] > b[1])
