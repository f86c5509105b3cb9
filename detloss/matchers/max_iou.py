"""Max-IoU matching: an anchor answers for the ground truth that it overlaps most."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detloss.boxes import pairwise_overlap
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
        if len(gt_boxes) == 0:
            nothing = torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
            return Matches(nothing.long(), nothing, nothing.clone())

        overlap = pairwise_overlap(gt_boxes, anchors)
        unusable = ~gt_boxes.isfinite().all(1)
        if gt_ignore is not None:
            unusable |= gt_ignore
        # below every threshold, and no best overlap
        overlap = torch.where(unusable[:, None], -1, overlap)
        best, target_index = overlap.amax(0), overlap.argmax(0)
        positive = (best >= self.positive) & (best > 0)
        if self.low_quality:
            best_of_gt = overlap.amax(1, keepdim=True) if len(anchors) else overlap
            positive |= ((overlap == best_of_gt) & (best_of_gt > 0)).any(0)

        ignored = best >= self.negative
        if gt_ignore is not None:
            inside = pairwise_overlap(anchors, gt_boxes, kind="iof")
            ignored |= ((inside >= self.ignore_overlap) & (inside > 0) & gt_ignore).any(1)
        return Matches(torch.where(positive, target_index, 0), positive, ignored & ~positive)
