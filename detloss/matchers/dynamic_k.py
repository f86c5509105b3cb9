"""Ground truths that take as many anchors as their best overlaps add up to, the cheapest first."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from detloss.matchers.base import Matcher
from detloss.matchers.claims import (
    ClaimMatcher,
    Owners,
    Pairs,
    Scene,
    contest,
    crossed,
    give_to_best_of_all,
    overlapping,
)
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
    def wanted(self, scene: Scene) -> list[Pairs]:
        """The pairs of ground truths and the anchors that they want."""
        raise NotImplementedError

    @abstractmethod
    def cost(self, scene: Scene, row: Tensor, anchor: Tensor, overlap: Tensor) -> Tensor:
        """The cost of pairs whose predicted boxes overlap so much; see `Measure`."""
        raise NotImplementedError

    def owners(self, scene: Scene) -> Owners:
        """See `ClaimMatcher.owners`; a positive's score is the overlap of its predicted box."""
        wanted = self.wanted(scene)
        scene = _without_far_ones(scene, wanted)
        candidates = torch.stack([pairs.anchors(scene) for pairs in wanted]).any(0)
        pairs = crossed(scene, candidates)

        overlap = scene.overlap(pairs.row, pairs.anchor, "iou")
        cost = self.cost(scene, pairs.row, pairs.anchor, overlap).nan_to_num_(torch.inf)
        anchor, costs = pairs.cheapest(cost, self.topk)
        rank = torch.arange(anchor.shape[1], device=anchor.device)
        chosen = (rank < self._counts(pairs.table(overlap, 0.0))) & (costs < torch.inf)
        owner = contest(scene, scene.every_row, anchor, chosen, -costs)

        def cheapness(row: Tensor, anchor: Tensor) -> Tensor:
            overlap = scene.overlap(row, anchor, "iou")
            return self.cost(scene, row, anchor, overlap).nan_to_num_(torch.inf).neg_()

        owner = give_to_best_of_all(scene, owner, anchor, chosen, cheapness)
        return Owners(owner, self._scores(scene, owner) if self.scores else None)

    def _takes_batch(self, anchors: Sequence[Tensor], gt_boxes: Sequence[Tensor]) -> bool:
        return Matcher._takes_batch(self, anchors, gt_boxes)  # every candidate meets every truth

    def _counts(self, overlaps: Tensor) -> Tensor:
        """(R, 1) how many anchors each ground truth takes, from the overlaps (R, K)."""
        largest = overlaps.topk(min(self.topk, overlaps.shape[1])).values
        return largest.sum(1, keepdim=True).int().clamp(min=1)

    def _scores(self, scene: Scene, owner: Tensor) -> Tensor:
        """(B A,) the overlap of each positive, 0 elsewhere."""
        anchor = torch.arange(len(owner), device=owner.device)
        if sync_is_free(owner):
            anchor = (owner < scene.rows).nonzero().view(-1)
        row = owner[anchor]
        overlap = scene.overlap(row.clamp(max=scene.rows - 1), anchor, "iou")
        overlap = torch.where(row < scene.rows, overlap, 0)
        return overlap.new_zeros(len(owner)).scatter(0, anchor, overlap)


def _without_far_ones(scene: Scene, wanted: list[Pairs]) -> Scene:
    """The scene, but a ground truth that wants no anchor and overlaps none may claim none."""
    wants = torch.stack([pairs.rows() for pairs in wanted]).any(0)
    if sync_is_free(wants) and wants[scene.truths.claims].all():
        return scene
    wants |= overlapping(scene, scene.anchors, scene.truths.boxes).rows()
    return scene._replace(truths=scene.truths._replace(claims=scene.truths.claims & wants))
