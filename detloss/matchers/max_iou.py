"""Max-IoU matching: an anchor answers for the ground truth that it overlaps most."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detloss.boxes import pairwise_overlap
from detloss.boxes.checking import wide_type
from detloss.boxes.looking import may_look
from detloss.boxes.overlaps import iou_of_planes, planes
from detloss.kernels.pairs import blocks_of_pairs, scratch_for_pairs
from detloss.matchers.base import Matcher, Matches, check_match_inputs
from detloss.registry import MATCHERS, Fraction


@MATCHERS.register("max_iou")
class MaxIoUMatcher(Matcher):
    """Positive above one IoU, background below another, ignored between.

    With the low-quality rule every ground truth also claims the anchors that overlap it most,
    ties included, however little that is; such an anchor then answers for the ground truth that
    *it* overlaps most. A ground truth that overlaps no anchor, or is not finite, claims none. Of
    several ground truths with the same overlap an anchor answers for the first.

    Args:
        positive: IoU from which an anchor is positive, in [0, 1].
        negative: IoU below which it is background, at most `positive`.
        low_quality: Whether the low-quality rule applies.
        ignore_overlap: Share of a background anchor's area inside one ignore region from which
            the anchor is ignored, in [0, 1].

    Raises:
        ValueError: If `negative` is greater than `positive`.

    Example:
        >>> anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 4], [50, 50, 60, 60]])
        >>> matches = MaxIoUMatcher()(anchors, torch.tensor([[0.0, 0, 10, 9]]))
        >>> matches.positive, matches.ignored
        (tensor([ True, False, False]), tensor([False,  True, False]))

    Reference:
        Ren et al., "Faster R-CNN", NeurIPS 2015, arXiv:1506.01497, section 3.1.2; the thresholds
        are those of Lin et al., "Focal Loss for Dense Object Detection", section 4.
    """

    def __init__(
        self,
        *,
        positive: Fraction = 0.5,
        negative: Fraction = 0.4,
        low_quality: bool = True,
        ignore_overlap: Fraction = 0.5,
    ) -> None:
        super().__init__()
        if negative > positive:
            raise ValueError(f"negative must be at most positive ({positive}), got {negative}")
        self.positive = positive
        self.negative = negative
        self.low_quality = low_quality
        self.ignore_overlap = ignore_overlap

    @torch.no_grad()
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
    ) -> Matches:
        """The matches of one image; see `Matcher.forward`. Overlaps alone decide."""
        check_match_inputs(anchors, gt_boxes, gt_ignore)
        dtype = torch.promote_types(wide_type(anchors), wide_type(gt_boxes))
        anchors, gt_boxes = anchors.to(dtype), gt_boxes.to(dtype)
        usable = gt_boxes.isfinite().all(1)
        if gt_ignore is not None:
            usable &= ~gt_ignore
        planes_of_anchors = planes(anchors)
        truths = planes(keep_boxes(gt_boxes, usable))
        best, is_best = self._best(planes_of_anchors, truths)

        positive = (best >= self.positive) & (best > 0)
        if is_best is not None:
            positive |= is_best
        ignored = best >= self.negative
        if gt_ignore is not None:
            regions = keep_boxes(gt_boxes, gt_ignore)
            ignored |= self._inside(anchors, regions, planes_of_anchors, planes(regions))
        target_index = self._answers(planes_of_anchors, truths, positive)
        return Matches(target_index, positive, ignored & ~positive)

    def _best(self, anchors: Tensor, truths: Tensor) -> tuple[Tensor, Tensor | None]:
        """Each anchor's largest IoU, and for the low-quality rule whether it is a truth's best."""
        best = anchors.new_zeros(anchors.shape[1])
        best_of_truth = anchors.new_zeros(truths.shape[1])
        scratch = scratch_for_pairs(anchors, truths)
        blocks, bests = [], []
        for part, near in blocks_of_pairs(anchors, truths):
            overlap = iou_of_planes(truths.index_select(1, near), anchors[:, part], scratch)
            best[part] = overlap.amax(0)
            blocks.append((part, near))
            bests.append(overlap.amax(1))
        if not self.low_quality or not blocks:
            return best, None

        nears = torch.cat([near for _, near in blocks])
        best_of_truth.scatter_reduce_(0, nears, torch.cat(bests), "amax")
        best_of_truth = torch.where(best_of_truth > 0, best_of_truth, torch.inf)
        goals = torch.split(best_of_truth[nears], [len(near) for _, near in blocks])
        is_best = torch.zeros_like(best, dtype=torch.bool)
        for (part, near), in_block, goal in zip(blocks, bests, goals, strict=True):
            if may_look(near):  # the few truths whose best is in this block
                here = (in_block == goal).nonzero().view(-1)
                if not len(here):
                    continue
                near, goal = near[here], goal[here]
            # the same arithmetic, to the bit
            overlap = iou_of_planes(truths.index_select(1, near), anchors[:, part], scratch)
            is_best[part] = overlap.sub_(goal[:, None]).amax(0) == 0
        return best, is_best

    def _answers(self, anchors: Tensor, truths: Tensor, positive: Tensor) -> Tensor:
        """(A,) the first of the truths that each positive anchor overlaps most, 0 elsewhere."""
        index = torch.zeros_like(positive, dtype=torch.long)
        chosen = positive.nonzero().view(-1) if may_look(positive) else None
        if chosen is not None:
            anchors = anchors[:, chosen]
        answer = index if chosen is None else index[chosen]
        scratch = scratch_for_pairs(anchors, truths)
        for part, near in blocks_of_pairs(anchors, truths):
            overlap = iou_of_planes(truths.index_select(1, near), anchors[:, part], scratch)
            answer[part] = near[overlap.max(0).indices]
        if chosen is None:
            return torch.where(positive, answer, 0)
        return index.index_copy_(0, chosen, answer)

    def _inside(
        self, anchors: Tensor, regions: Tensor, anchor_planes: Tensor, region_planes: Tensor
    ) -> Tensor:
        """Whether enough of each anchor lies inside one of the regions."""
        inside = torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
        for part, near in blocks_of_pairs(anchor_planes, region_planes):
            share = pairwise_overlap(anchors[part], regions[near], kind="iof")
            inside[part] = ((share >= self.ignore_overlap) & (share > 0)).any(1)
        return inside


def keep_boxes(boxes: Tensor, kept: Tensor) -> Tensor:
    """`boxes` (M, 4), those that are not kept shrunk to a point that overlaps nothing."""
    return torch.where(kept[:, None], boxes, 0)
