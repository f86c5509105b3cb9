"""ATSS matching: each ground truth sets its own IoU threshold, from the anchors nearest to it."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from detloss.boxes.planes import centres, iou_of_planes
from detloss.matchers.base import Assigned, Matcher
from detloss.matchers.images import Images
from detloss.matchers.nearest import nearest
from detloss.matchers.tiles import most_overlapped
from detloss.registry import MATCHERS, Fraction, Positive, PositiveInt
from detloss.tensors import has_float64, sync_is_free

Convention = Literal["paper", "mmdet", "paddle"]
MARGIN = {"paper": 0.0, "mmdet": 0.01, "paddle": 1e-9}
"""Beyond which distance to each side of a ground truth a centre is inside it, in their unit."""


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
        self.needs_sizes = scale == 1  # the scale gives points a size
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
        if sync_is_free(truths) and not truths.any():  # no objects, which a CPU can see
            no = torch.zeros(boxes.shape[:2], dtype=torch.bool)
            return Assigned(no.long(), no, images.in_ignore_region(self.ignore_overlap))
        candidates = nearest(boxes, truths, sizes, self.topk)
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
        centre = centres(anchor)
        inside = torch.minimum(centre - truth[:2], truth[2:] - centre).amin(0)
        return above & (inside > MARGIN[self.convention]), overlap


def _scaled(boxes: Tensor, factor: float) -> Tensor:
    """`boxes` (..., 4), their sides times the factor about their centres."""
    if factor == 1:
        return boxes
    first, last = boxes[..., :2], boxes[..., 2:]
    centre, half = (first + last) / 2, (last - first) * (factor / 2)
    return torch.cat([centre - half, centre + half], -1)
