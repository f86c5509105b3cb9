"""Max-IoU matching: an anchor is assigned to the ground truth that it overlaps most."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detloss.boxes.overlaps import iou_of_planes
from detloss.matchers.base import Matcher, Matches
from detloss.matchers.regions import in_ignore_region, matchable
from detloss.matchers.tiles import Tiles, most_overlapped
from detloss.registry import MATCHERS, Fraction
from detloss.tensors import sync_is_free


@MATCHERS.register("max_iou")
class MaxIoUMatcher(Matcher):
    """Positive above one IoU, background below another, ignored between.

    An anchor is assigned to the ground truth that it overlaps most, to the first of equal ones.
    With the low-quality rule every ground truth also makes positive the anchors that overlap it
    most, ties included, however little that is; they too are assigned to the ground truth that
    *they* overlap most. So a ground truth may keep no anchor, even with the rule. One that overlaps
    no anchor, or is not finite, makes none positive.

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
        objectness: Tensor | None = None,
    ) -> Matches:
        """The matches of one image, by overlaps alone; see `Matcher.forward`."""
        boxes, truths = matchable(anchors, gt_boxes, gt_ignore)
        best, is_best = self._best(Tiles(boxes, truths))
        positive = best >= self.positive if self.positive > 0 else best > 0
        if is_best is not None:
            positive |= is_best
        target_index = most_overlapped(boxes, truths, positive)
        ignored = best >= self.negative
        ignored |= in_ignore_region(boxes, gt_boxes, gt_ignore, self.ignore_overlap)
        return Matches(target_index, positive, ignored & ~positive)

    def _best(self, tiles: Tiles) -> tuple[Tensor, Tensor | None]:
        """Each anchor's largest IoU, and for the low-quality rule whether that is its truth's best.

        Both (A,); the second is None without the rule. The IoU of a pair is computed twice rather
        than kept: first for the largest of each truth, then to find the anchors that have it.
        """
        best = tiles.new_zeros()
        best_in_tile = tiles.new_zeros(by_box=True)
        for chosen, near in tiles.blocks():
            overlap = iou_of_planes(*tiles.pairs(chosen, near))
            best[chosen] = overlap.amax(1)
            if self.low_quality:
                best_in_tile[chosen[:, None], near] = overlap.amax(2)
        if not self.low_quality or not best.numel():
            return tiles.untiled(best), None

        best_of_truth = best_in_tile.amax(0)
        best_of_truth = torch.where(best_of_truth > 0, best_of_truth, torch.inf)
        is_best = tiles.new_zeros(dtype=torch.bool)
        if sync_is_free(best):  # only tiles with a truth's best; the same arithmetic, to the bit
            for chosen, near in tiles.blocks_of(best_in_tile == best_of_truth):
                overlap = iou_of_planes(*tiles.pairs(chosen, near))
                row, _, place = (overlap == best_of_truth[near][..., None]).nonzero().unbind(1)
                is_best[chosen[row], place] = True
        else:
            for chosen, near in tiles.blocks():
                overlap = iou_of_planes(*tiles.pairs(chosen, near))
                is_best[chosen] = (overlap == best_of_truth[near][..., None]).any(1)
        return tiles.untiled(best), tiles.untiled(is_best)
