"""Matching by how well a prediction solves both tasks, its class and its box."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from detloss.matchers.claims import (
    ClaimMatcher,
    Owners,
    contest,
    first_to_choose,
    give_to_best_of_all,
    rank_in_row,
)
from detloss.matchers.pairs import cheapest_overlapping, reaches
from detloss.matchers.scene import Measure, Scene
from detloss.registry import MATCHERS, Fraction, NonNegative, PositiveInt

Convention = Literal["tood", "ppyoloe", "ultralytics"]
EPSILON = {"tood": 1e-7, "ppyoloe": 1e-9, "ultralytics": 1e-9}
"""What keeps the scale of the scores finite."""
MARGIN = {"tood": 0.01, "ppyoloe": 1e-9, "ultralytics": 1e-9}
"""How far inside a ground truth the centre of its anchors lies."""


@MATCHERS.register("task_aligned")
class TaskAlignedMatcher(ClaimMatcher):
    """Each ground truth takes the anchors whose prediction is most aligned with it.

    The alignment of an anchor with a ground truth is ``t = s^alpha u^beta``: s the predicted
    probability of the ground truth's class, u the overlap of the predicted box with it, at least 0.
    A ground truth takes the `topk` anchors of largest t, the first of equal ones, whose centre lies
    inside it. An anchor that several have taken goes to one of them. The score of a positive is
    ``t / max(t) * max(u)``, the maxima over the positives of its ground truth, so that the best of
    them has the largest overlap for its label.

    Implementations differ in what a `convention` names:

    - "tood", the paper's: the topk are taken of all anchors, and those whose centre is outside are
      dropped; a contested anchor goes to the largest overlap of those that took it.
    - "ppyoloe" (PaddleDetection, super-gradients, YOLOv6, YOLOv9): the topk are taken of the
      anchors inside; a contested anchor goes to the ground truth of the image that overlaps its
      prediction most, even if that had not taken it.
    - "ultralytics": likewise, but of the ground truths that the anchor's centre is inside.

    Some of them also take anchors with t = 0, which ones is left to the order of a sort; such an
    anchor has score 0. Here an anchor is taken only with t > 0.

    A ground truth keeps no anchor where no centre is inside it, no prediction overlaps it, or
    others win all that it took.

    Args:
        topk: Anchors that each ground truth takes.
        alpha: Power of the probability, >= 0.
        beta: Power of the overlap, >= 0.
        overlap: What u is, a kind of `detloss.boxes.paired_overlap`; "iou" in the paper.
        convention: See above.
        min_side: A ground truth with a shorter side takes anchors as if that side were as long
            about its centre (ultralytics: 16, the second stride), in the unit of the boxes.
        topk_kept: Of the anchors that each ground truth has in the end it keeps so many, those of
            largest t; None for all.
        ignore_overlap: Share of an anchor's area in an ignore region from which it is ignored.

    Example:
        >>> points = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [80, 80, 88, 88]])
        >>> matches = TaskAlignedMatcher(topk=2)(
        ...     points,
        ...     torch.tensor([[1.0, 1, 15, 9]]),
        ...     gt_labels=torch.tensor([0]),
        ...     class_logits=torch.tensor([[0.0], [2.0], [2.0]]),
        ...     pred_boxes=torch.tensor([[1.0, 1, 15, 9], [0, 0, 15, 9], [1, 1, 15, 9]]),
        ... )
        >>> matches.positive, matches.score
        (tensor([ True, False, False]), tensor([1.0000, 0.0000, 0.0000]))

    Reference:
        Feng et al., "TOOD: Task-aligned One-stage Object Detection", ICCV 2021, arXiv:2108.07755.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gt_labels", "class_logits", "pred_boxes"})
    scores: ClassVar[bool] = True

    def __init__(
        self,
        *,
        topk: PositiveInt = 13,
        alpha: NonNegative = 1.0,
        beta: NonNegative = 6.0,
        overlap: str = "iou",
        convention: Convention = "tood",
        min_side: NonNegative = 0.0,
        topk_kept: PositiveInt | None = None,
        ignore_overlap: Fraction = 0.5,
    ) -> None:
        super().__init__()
        self.topk = topk
        self.alpha = alpha
        self.beta = beta
        self.overlap = overlap
        self.convention = convention
        self.min_side = min_side
        self.topk_kept = topk_kept
        self.ignore_overlap = ignore_overlap

    def owners(self, scene: Scene) -> Owners:
        """See `ClaimMatcher.owners`."""
        centres, areas = scene.centres, self._areas(scene.truths.boxes)
        reach, within = centres, areas
        if self.convention == "tood":  # whose t > 0 lets only overlapping predictions in
            assert scene.pred_boxes is not None
            reach, within = scene.pred_boxes.view(scene.images, -1, 4), scene.truths.boxes
        overlap_of = scene.overlaps(self.overlap)

        def cost(row: Tensor, anchor: Tensor) -> Tensor:
            return self._alignment(scene, row, anchor, overlap_of(row, anchor)).neg_()

        anchor, cost_of = cheapest_overlapping(scene, reach, within, cost, self.topk)
        row = scene.every_row

        def priority(row: Tensor, anchor: Tensor) -> Tensor:
            overlap = overlap_of(row, anchor)
            may = overlap > 0
            if self.convention == "ultralytics":
                may &= reaches(scene, centres, areas, row, anchor)
            return torch.where(may, overlap, -torch.inf)

        chosen = cost_of < 0
        if self.convention == "tood":
            chosen &= reaches(scene, centres, areas, row, anchor)
            owner = contest(scene, row, anchor, chosen, overlap_of(row, anchor))
        else:
            owner = first_to_choose(scene, row, anchor, chosen)
            owner = give_to_best_of_all(scene, owner, anchor, chosen, priority)
        return self._scored(scene, owner, overlap_of)

    def _areas(self, truths: Tensor) -> Tensor:
        """(R, 4) where the centres of the anchors lie that each ground truth may take."""
        half = (truths[:, 2:] - truths[:, :2]) / 2
        grown = (self.min_side / 2 - half).clamp(min=0) - MARGIN[self.convention]
        return torch.cat([truths[:, :2] - grown, truths[:, 2:] + grown], 1)

    def _alignment(self, scene: Scene, row: Tensor, anchor: Tensor, overlap: Tensor) -> Tensor:
        """Alignment t of pairs with these overlaps u; see `detloss.matchers.scene.Measure`."""
        probability = scene.logit(row, anchor).sigmoid().nan_to_num(0.0)
        return probability.pow(self.alpha) * overlap.pow(self.beta)

    def _scored(self, scene: Scene, owner: Tensor, overlap_of: Measure) -> Owners:
        """The owners (B A,) that keep their anchor, and the scores of these."""
        anchor = scene.owned(owner)
        row = owner[anchor]
        some = row.clamp(max=scene.rows - 1)
        overlap = overlap_of(some, anchor)
        alignment = self._alignment(scene, some, anchor, overlap)
        if self.topk_kept is not None:
            kept = rank_in_row(row, alignment) < self.topk_kept
            row = torch.where(kept, row, scene.rows)
        most = alignment.new_zeros(2, scene.rows + 1)  # t and u of each ground truth
        values = torch.stack([alignment, overlap])
        most = most.scatter_reduce(1, row.expand_as(values), values, "amax")[:, row]
        score = alignment / (most[0] + EPSILON[self.convention]) * most[1]
        score = torch.where(row < scene.rows, score, 0)
        return Owners(
            torch.full_like(owner, scene.rows).scatter(0, anchor, row),
            score.new_zeros(len(owner)).scatter(0, anchor, score),
        )
