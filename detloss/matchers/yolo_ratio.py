"""Matching of YOLOv5: anchors of like sides in the cell of the centre and the cells next to it."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from detloss.boxes import anchor_strides
from detloss.matchers.claims import ClaimMatcher, Owners
from detloss.matchers.pairs import overlapping, reaches
from detloss.matchers.scene import Scene, Truths, take
from detloss.matchers.tiles import rows_of_a_block
from detloss.registry import MATCHERS, Fraction, Positive, PositiveInt
from detloss.tensors import sync_is_free

CELLS = 3
"""The most cells of a level in which a ground truth takes anchors."""
CPU_PAIRS = 2_097_152
"""Pairs on a CPU of which the near ones are looked for at once. Few are, unless cells are as large
as the anchors of RetinaNet: then one in ten, of some 50 bytes each."""


@MATCHERS.register("yolo_ratio")
class YOLORatioMatcher(ClaimMatcher):
    """A ground truth takes the anchors of like sides in the cells near its centre.

    Let (w, h) be the size of a ground truth and (wa, ha) that of an anchor. They are alike if
    ``max(w / wa, wa / w, h / ha, ha / h) < max_ratio``. The cells of a level are its own, in which
    its centre lies, and the neighbour beyond the nearest side of that cell along x, and along y,
    unless the centre is exactly in the middle. In each of them it takes every anchor that is like
    it. Predictions are not looked at.

    An anchor may be taken by several ground truths: `Matches.pairs` lists all of them, in the order
    of the ground truths, then of the anchors. Of these `target_index` names the last in the order
    of the original: by where the anchor's cell is, seen from the cell of the centre (it itself,
    left, above, right, below), and then by the number of the ground truth.

    A ground truth takes none where it is like no anchor, or overlaps none that it would take.

    Args:
        max_ratio: Ratio of sides from which a ground truth and an anchor are not alike, > 1.
        strides: Stride of each pyramid level, the side of its cells, in the order of
            ``level_sizes``; anchors lie around the centres of their cells. None where the anchors
            are the cells themselves.
        anchors_per_cell: How many anchors a cell has. A ground truth takes at most three times so
            many a level, which bounds the pairs where counting them would be a host sync; of more
            it takes the first.
        ignore_overlap: Share of an anchor's area in an ignore region from which it is ignored.

    Raises:
        ValueError: If `max_ratio` is not above 1.

    Example:
        Four cells of a stride of 8 in a row. The centre of the box is in the second, near the
        first:

        >>> anchors = torch.tensor([[-2.0, -1, 10, 9], [6, -1, 18, 9], [14, -1, 26, 9]])
        >>> matches = YOLORatioMatcher(strides=[8], anchors_per_cell=1)(
        ...     anchors, torch.tensor([[5.0, 0, 15, 8]]), level_sizes=[3]
        ... )
        >>> matches.pairs
        tensor([[0, 0],
                [1, 0]])

    Reference:
        Jocher, "YOLOv5 by Ultralytics", 2020, doi:10.5281/zenodo.3908559: build_targets of its
        loss.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"level_sizes"})
    needs_sizes = True

    def __init__(
        self,
        *,
        max_ratio: Positive = 4.0,
        strides: Sequence[Positive] | None = None,
        anchors_per_cell: PositiveInt = 3,
        ignore_overlap: Fraction = 0.5,
    ) -> None:
        super().__init__()
        if max_ratio <= 1:
            raise ValueError(f"max_ratio must be greater than 1, got {max_ratio}")
        self.max_ratio = max_ratio
        self.strides = None if strides is None else [float(stride) for stride in strides]
        self.anchors_per_cell = anchors_per_cell
        self.ignore_overlap = ignore_overlap

    def owners(self, scene: Scene) -> Owners:
        """See `ClaimMatcher.owners`."""
        taken = self._taken(scene)
        row, most = scene.every_row, scene.most
        order = torch.where(taken.chosen, taken.side * most + row % most, -1)
        last = row.new_full((scene.images * scene.size,), -1)
        last = last.scatter_reduce(0, taken.anchor.flatten(), order.flatten(), "amax")
        image = torch.arange(len(last), device=last.device) // scene.size
        owner = torch.where(last < 0, scene.rows, image * most + last % most)
        pairs = torch.stack([taken.anchor % scene.size, (row % most).expand_as(taken.anchor)], -1)
        is_pair = taken.chosen.view(scene.images, -1)
        if not sync_is_free(is_pair):
            pairs = pairs.view(scene.images, -1, 2)
            return Owners(owner, pairs=pairs.unbind(), is_pair=is_pair.unbind())
        return Owners(owner, pairs=torch.split(pairs[taken.chosen], is_pair.sum(1).tolist()))

    def _taken(self, scene: Scene) -> "Taken":
        """What each ground truth takes, in blocks of ground truths."""
        sides = self._cell_sides(scene)
        # the centres of ground truths that are less than a cell away
        reach = scene.centres
        reach[..., :2] -= sides
        reach[..., 2:] += sides
        width = scene.images * scene.size
        size = rows_of_a_block(scene.anchors, scene.most, width)
        if sync_is_free(sides):  # where only the pairs that are near take memory
            size = max(CPU_PAIRS // width, 1)
        found = []
        for place in torch.split(scene.row_of_images[..., 0], size, 1):  # some of each image
            boxes, image, claims = (some[place.flatten()] for some in scene.truths[:3])
            some_truths = scene.having(Truths(boxes, image, claims, None))
            taken = self._taken_by(some_truths, sides, reach)
            found.append([values.view(*place.shape, -1) for values in taken])
        return Taken(*(torch.cat(values, 1).flatten(0, 1) for values in zip(*found, strict=True)))

    def _taken_by(self, scene: Scene, sides: Tensor, reach: Tensor) -> "Taken":
        """The same of the ground truths of a scene alone.

        Args:
            scene: The anchors, and some ground truths of each image.
            sides: (G, A, 2) of the cells.
            reach: (G, A, 4) where the centres lie of the ground truths that come into question.
        """
        truths = scene.truths.boxes
        centres = (truths[:, :2] + truths[:, 2:]) / 2
        pairs = overlapping(scene, reach, torch.cat([centres, centres], -1))
        alike = self._alike(scene, pairs.row, pairs.anchor)
        across = _cells_across(scene, sides, pairs.row, pairs.anchor)
        comes = alike & (across == 0).any(-1)
        if pairs.valid is not None:
            comes &= pairs.valid
        assert scene.level_sizes is not None
        most = CELLS * self.anchors_per_cell * len(scene.level_sizes)
        if not pairs.shape[1]:
            none = pairs.anchor.new_zeros(scene.rows, most)
            return Taken(none, none.bool(), none)
        anchor, cost = pairs.cheapest(torch.where(comes, 0.0, torch.inf), most)
        row = scene.every_row
        chosen = cost < torch.inf
        overlaps = reaches(scene, scene.anchors, truths, row, anchor)
        chosen &= (chosen & overlaps).any(1, keepdim=True)
        x, y = _cells_across(scene, sides, row, anchor).unbind(-1)
        along_x, along_y = torch.where(x < 0, 1, 3), torch.where(y < 0, 2, 4)
        side = torch.where(x != 0, along_x, torch.where(y != 0, along_y, 0))
        fill = (0, most - anchor.shape[1])
        return Taken(pad(anchor, fill), pad(chosen, fill), pad(side, fill))

    def _cell_sides(self, scene: Scene) -> Tensor:
        """(G, A, 2) width and height of each anchor's cell."""
        anchors = scene.anchors
        if self.strides is None:
            return anchors[..., 2:] - anchors[..., :2]
        assert scene.level_sizes is not None
        strides = anchor_strides(
            scene.level_sizes, self.strides, device=anchors.device, dtype=anchors.dtype
        )
        return strides[:, None].expand_as(anchors[..., :2])

    def _alike(self, scene: Scene, row: Tensor, anchor: Tensor) -> Tensor:
        """Whether the sides of ground truths and anchors are alike; see `Measure`."""
        boxes, truths = scene.boxes_at(anchor), take(scene.truths.boxes, row)
        of_anchor, of_truth = (some[..., 2:] - some[..., :2] for some in (boxes, truths))
        smaller, larger = torch.minimum(of_anchor, of_truth), torch.maximum(of_anchor, of_truth)
        return (larger < self.max_ratio * smaller).all(-1)


class Taken(NamedTuple):
    """The anchors that ground truths take, in order, each at most k.

    Attributes:
        anchor: (R, k) their numbers.
        chosen: (R, k) bool, which of them are taken.
        side: (R, k) where the anchor's cell is, seen from the cell of the ground truth's centre: 0
            it itself, 1 left, 2 above, 3 right, 4 below.
    """

    anchor: Tensor
    chosen: Tensor
    side: Tensor


def _cells_across(scene: Scene, sides: Tensor, row: Tensor, anchor: Tensor) -> Tensor:
    """How many cells the anchor's one is right of and below that of the centre, (..., 2).

    They are within a cell of each other; see `Measure`.
    """
    boxes, truths = scene.boxes_at(anchor), take(scene.truths.boxes, row)
    if len(sides) == 1:
        anchor = anchor % scene.size
    side = sides.flatten(0, 1)[anchor]
    of_anchor, of_truth = ((some[..., :2] + some[..., 2:]) / 2 for some in (boxes, truths))
    offset = (of_truth - of_anchor) / side
    return (offset < -0.5).long() - (offset >= 0.5).long()
