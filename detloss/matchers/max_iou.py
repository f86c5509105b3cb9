"""Max-IoU matching: an anchor answers for the ground truth that it overlaps most."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detloss.boxes import pairwise_overlap
from detloss.boxes.checking import widen
from detloss.kernels.pairs import blocks_of_pairs
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
        dtype = torch.promote_types(widen(anchors).dtype, widen(gt_boxes).dtype)
        anchors, gt_boxes = anchors.to(dtype), gt_boxes.to(dtype)
        usable = gt_boxes.isfinite().all(1)
        if gt_ignore is not None:
            usable &= ~gt_ignore
        best, target_index, is_best = self._best(anchors, keep_boxes(gt_boxes, usable))

        positive = (best >= self.positive) & (best > 0)
        if self.low_quality:
            positive |= is_best
        ignored = best >= self.negative
        if gt_ignore is not None:
            ignored |= self._inside(anchors, keep_boxes(gt_boxes, gt_ignore))
        return Matches(torch.where(positive, target_index, 0), positive, ignored & ~positive)

    def _best(self, anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each anchor's largest IoU, whose it is, and whether the anchor is some box's best."""
        best = anchors.new_zeros(len(anchors))
        index = torch.zeros(len(anchors), dtype=torch.long, device=anchors.device)
        is_best = torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
        best_of_box = anchors.new_zeros(len(boxes))

        blocks = []
        for part, near in blocks_of_pairs(anchors, boxes):
            overlap = pairwise_overlap(boxes[near], anchors[part])
            best[part], which = overlap.max(0)
            index[part] = near[which]
            best_in_block = overlap.amax(1)
            best_of_box[near] = torch.maximum(best_of_box[near], best_in_block)
            blocks.append((part, near, best_in_block))
        if not self.low_quality:
            return best, index, is_best

        for part, near, best_in_block in blocks:
            if near.device.type == "cpu" and not torch.compiler.is_compiling():
                # the few boxes whose best is in this block; the same arithmetic, to the bit
                near = near[(best_in_block == best_of_box[near]) & (best_in_block > 0)]
            overlap = pairwise_overlap(boxes[near], anchors[part])
            is_best[part] = ((overlap == best_of_box[near, None]) & (overlap > 0)).any(0)
        return best, index, is_best

    def _inside(self, anchors: Tensor, regions: Tensor) -> Tensor:
        """Whether enough of each anchor lies inside one of the regions."""
        inside = torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
        for part, near in blocks_of_pairs(anchors, regions):
            share = pairwise_overlap(anchors[part], regions[near], kind="iof")
            inside[part] = ((share >= self.ignore_overlap) & (share > 0)).any(1)
        return inside


def keep_boxes(boxes: Tensor, kept: Tensor) -> Tensor:
    """`boxes` (M, 4), those that are not kept shrunk to a point that overlaps nothing."""
    return torch.where(kept[:, None], boxes, 0)
