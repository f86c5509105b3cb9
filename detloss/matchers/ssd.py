"""Matching of SSD: anchors that overlap a ground truth enough, and the best one of each."""

from typing import Literal

import torch

from detloss.matchers.claims import ClaimMatcher, Contest, Owners
from detloss.matchers.pairs import blocks_of_overlapping
from detloss.matchers.scene import Scene
from detloss.registry import MATCHERS, Fraction

Convention = Literal["torchvision", "mmdet", "effdet"]


@MATCHERS.register("ssd")
class SSDMatcher(ClaimMatcher):
    """An anchor is positive from an IoU on; each ground truth has its best anchor in any case.

    An anchor whose largest IoU reaches `positive` is assigned to the ground truth that it overlaps
    most, of equal ones the first. Then each ground truth takes the anchor that overlaps it most, of
    equal ones the first, whoever had it. The rest is background; no anchor is in between.

    Implementations differ in who gets an anchor that is the best of several, which a `convention`
    names: the last of them ("torchvision", "mmdet") or the first ("effdet"). So a ground truth that
    overlaps an anchor keeps at least one, unless it has its best anchor in common with another. One
    that overlaps none claims none, where these implementations give it any.

    Args:
        positive: IoU from which an anchor is positive, in [0, 1]; an IoU of 0 never is.
        convention: See above.
        ignore_overlap: Share of an anchor's area in an ignore region from which it is ignored.

    Example:
        >>> anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 40], [50, 50, 60, 60]])
        >>> SSDMatcher()(anchors, torch.tensor([[0.0, 0, 10, 8], [0, 10, 9, 22]])).target_index
        tensor([0, 1, 0])

    Reference:
        Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, arXiv:1512.02325, section 2.2.
    """

    needs_sizes = True

    def __init__(
        self,
        *,
        positive: Fraction = 0.5,
        convention: Convention = "torchvision",
        ignore_overlap: Fraction = 0.5,
    ) -> None:
        super().__init__()
        self.positive = positive
        self.convention = convention
        self.ignore_overlap = ignore_overlap

    def owners(self, scene: Scene) -> Owners:
        """See `ClaimMatcher.owners`."""
        first = self.convention == "effdet"
        of_none = scene.rows if first else -1
        won = Contest(scene)
        forced = torch.full_like(won.owner, of_none)
        for pairs in blocks_of_overlapping(scene, scene.anchors, scene.truths.boxes):
            if not pairs.shape[1]:
                continue
            overlap = scene.anchor_overlap(pairs.row, pairs.anchor)
            chosen = (overlap >= self.positive) & (overlap > 0)
            if pairs.valid is not None:
                chosen &= pairs.valid
            won.add(pairs.row, pairs.anchor, chosen, overlap)
            best, cost = pairs.cheapest(-overlap, 1)
            rows = scene.every_row[pairs.slice_of_rows]
            taker = torch.where(cost < 0, rows, of_none).flatten()
            forced.scatter_reduce_(0, best.flatten(), taker, "amin" if first else "amax")
        return Owners(torch.where(forced == of_none, won.owner, forced))
