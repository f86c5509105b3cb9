"""Ground truths that take as many anchors as their best overlaps add up to, the cheapest first."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from detloss.matchers.base import Matcher
from detloss.matchers.claims import ClaimMatcher, Owners, contest, give_to_best_of_all
from detloss.matchers.pairs import Pairs, blocks_of_overlapping, crossed
from detloss.matchers.scene import Measure, Scene, Truths
from detloss.tensors import sync_is_free


class DynamicKMatcher(ClaimMatcher):
    """Each ground truth takes its k cheapest candidates; a subclass says which, and their cost.

    Candidates of an image are the anchors that any of its ground truths wants. With u the IoU of a
    candidate's predicted box with a ground truth, k is the sum of the `topk` largest u, rounded
    down, at least 1. An anchor that several have taken goes to the ground truth of the image for
    which it is cheapest. Of equal costs the first anchor and the first ground truth are taken.

    A ground truth that wants no anchor takes those of others, if it overlaps any anchor at all. It
    is left without one where the image has no candidate, or others win all that it took.
    """

    topk: int

    @abstractmethod
    def wanted(self, scene: Scene) -> Iterable[Pairs]:
        """The pairs of ground truths and the anchors that they want, in any blocks."""
        raise NotImplementedError

    @abstractmethod
    def cost_of_no_class(self, scene: Scene) -> Tensor:
        """(B A,) what each anchor would cost if it were to say no to every class."""
        raise NotImplementedError

    @abstractmethod
    def cost(
        self, scene: Scene, row: Tensor, anchor: Tensor, overlap: Tensor, of_no_class: Tensor
    ) -> Tensor:
        """The cost of pairs, see `Measure`, with the overlaps of their predicted boxes.

        `of_no_class` is like these and says what `cost_of_no_class` says of their anchors.
        """
        raise NotImplementedError

    def owners(self, scene: Scene) -> Owners:
        """See `ClaimMatcher.owners`; a positive's score is the overlap of its predicted box."""
        wants, candidates = self._wanted(scene)
        scene = _without_far_ones(scene, wants)
        of_none, overlap_of = self.cost_of_no_class(scene), scene.overlaps("iou")

        def cost(row: Tensor, anchor: Tensor, overlap: Tensor) -> Tensor:
            found = self.cost(scene, row, anchor, overlap, of_none[anchor])
            return found.nan_to_num_(torch.inf)

        anchor, costs = scene.nothing_chosen(self.topk)
        count = torch.zeros_like(anchor[:, :1])
        for pairs in crossed(scene, candidates):
            overlap = overlap_of(pairs.row, pairs.anchor)
            pairs.write_cheapest(cost(pairs.row, pairs.anchor, overlap), anchor, costs)
            count[pairs.slice_of_rows] = self._counts(pairs.table(overlap, 0.0))
        rank = torch.arange(self.topk, device=anchor.device)
        chosen = (rank < count) & (costs < torch.inf)
        owner = contest(scene, scene.every_row, anchor, chosen, -costs)

        def cheapness(row: Tensor, anchor: Tensor) -> Tensor:
            return cost(row, anchor, overlap_of(row, anchor)).neg_()

        owner = give_to_best_of_all(scene, owner, anchor, chosen, cheapness)
        return Owners(owner, self._scores(scene, owner, overlap_of) if self.scores else None)

    def _wanted(self, scene: Scene) -> tuple[Tensor, Tensor]:
        """(R,) bool, which ground truths want an anchor, and (B A,) which anchors are wanted."""
        wants = torch.zeros_like(scene.truths.claims)
        candidates = wants.new_zeros(scene.images * scene.size)
        for pairs in self.wanted(scene):
            wants[pairs.slice_of_rows] |= pairs.rows()
            candidates |= pairs.anchors(scene)
        return wants, candidates

    def _takes_batch(self, anchors: Sequence[Tensor], gt_boxes: Sequence[Tensor]) -> bool:
        return Matcher._takes_batch(self, anchors, gt_boxes)  # every candidate meets every truth

    def _counts(self, overlaps: Tensor) -> Tensor:
        """(R, 1) how many anchors each ground truth takes, from the overlaps (R, K)."""
        largest = overlaps.topk(min(self.topk, overlaps.shape[1])).values
        return largest.sum(1, keepdim=True).long().clamp(min=1)

    def _scores(self, scene: Scene, owner: Tensor, overlap_of: Measure) -> Tensor:
        """(B A,) the overlap of each positive, 0 elsewhere."""
        anchor = scene.owned(owner)
        row = owner[anchor]
        overlap = overlap_of(row.clamp(max=scene.rows - 1), anchor)
        overlap = torch.where(row < scene.rows, overlap, 0)
        return overlap.new_zeros(len(owner)).scatter(0, anchor, overlap)


def _without_far_ones(scene: Scene, wants: Tensor) -> Scene:
    """The scene, but a ground truth that wants no anchor and overlaps none may claim none."""
    if sync_is_free(wants) and wants[scene.truths.claims].all():
        return scene
    wants = wants.clone()
    for pairs in blocks_of_overlapping(scene, scene.anchors, scene.truths.boxes):
        wants[pairs.slice_of_rows] |= pairs.rows()
    boxes, image, claims, labels = scene.truths
    return scene.having(Truths(boxes, image, claims & wants, labels))
