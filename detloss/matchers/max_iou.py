"""Max-IoU matching: an anchor answers for the ground truth that it overlaps most."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detloss.boxes.overlaps import area_of_planes, iof_of_planes, iou_of_planes
from detloss.matchers.base import Matcher, Matches, check_match_inputs
from detloss.matchers.tiles import Tiles
from detloss.registry import MATCHERS, Fraction
from detloss.tensors import sync_is_free, wide_type

FAR = 1e15
"""Boxes within this distance have finite areas in every dtype that overlaps are computed in."""


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
        objectness: Tensor | None = None,
    ) -> Matches:
        """The matches of one image; see `Matcher.forward`. Overlaps alone decide."""
        check_match_inputs(anchors, gt_boxes, gt_ignore)
        dtype = torch.promote_types(wide_type(anchors), wide_type(gt_boxes))
        anchors, gt_boxes = anchors.to(dtype), gt_boxes.to(dtype)
        anchors = finite_only(anchors)
        truths = finite_only(gt_boxes if gt_ignore is None else keep_boxes(gt_boxes, ~gt_ignore))
        best, is_best = self._best(Tiles(anchors, truths))

        positive = best >= self.positive if self.positive > 0 else best > 0
        if is_best is not None:
            positive |= is_best
        ignored = best >= self.negative
        if gt_ignore is not None:
            ignored |= self._inside(Tiles(anchors, keep_boxes(gt_boxes, gt_ignore)))
        target_index = self._answers(anchors, truths, positive)
        return Matches(target_index, positive, ignored & ~positive)

    def _best(self, tiles: Tiles) -> tuple[Tensor, Tensor | None]:
        """Each anchor's largest IoU, and for the low-quality rule whether it is a truth's best."""
        best = tiles.new_zeros()
        best_in_tile = tiles.new_zeros(by_box=True)
        for chosen, near in tiles.blocks():
            overlap = iou_of_planes(*tiles.pairs(chosen, near))
            best[chosen] = overlap.amax(1)
            if self.low_quality:
                best_in_tile[chosen[:, None], near] = overlap.amax(2)
        if not self.low_quality or not best.numel():
            return tiles.untiled(best), None

        goal = best_in_tile.amax(0)
        goal = torch.where(goal > 0, goal, torch.inf)
        is_best = tiles.new_zeros(dtype=torch.bool)
        if sync_is_free(best):  # the few tiles with a truth's best; the same arithmetic, to the bit
            for chosen, near in tiles.blocks_of(best_in_tile == goal):
                overlap = iou_of_planes(*tiles.pairs(chosen, near))
                row, _, place = (overlap == goal[near][..., None]).nonzero().unbind(1)
                is_best[chosen[row], place] = True
        else:
            for chosen, near in tiles.blocks():
                overlap = iou_of_planes(*tiles.pairs(chosen, near))
                is_best[chosen] = (overlap == goal[near][..., None]).any(1)
        return tiles.untiled(best), tiles.untiled(is_best)

    def _answers(self, anchors: Tensor, truths: Tensor, positive: Tensor) -> Tensor:
        """(A,) the first of the truths that each positive anchor overlaps most, 0 elsewhere."""
        index = torch.zeros_like(positive, dtype=torch.long)
        chosen = positive.nonzero().view(-1) if sync_is_free(positive) else None
        tiles = Tiles(anchors if chosen is None else anchors[chosen], truths)
        answer = tiles.new_zeros(dtype=torch.long)
        for those, near in tiles.blocks():
            overlap = iou_of_planes(*tiles.pairs(those, near))
            answer[those] = near.gather(1, overlap.max(1).indices)
        if chosen is None:
            return torch.where(positive, tiles.untiled(answer), 0)
        return index.index_copy_(0, chosen, tiles.untiled(answer))

    def _inside(self, tiles: Tiles) -> Tensor:
        """Whether enough of each anchor lies inside one of the boxes, which are regions."""
        inside = tiles.new_zeros(dtype=torch.bool)
        for chosen, near in tiles.blocks():
            regions, anchors = tiles.pairs(chosen, near)
            share = iof_of_planes(anchors, regions)
            inside[chosen] = ((share >= self.ignore_overlap) & (share > 0)).any(1)
        return tiles.untiled(inside)


def finite_only(boxes: Tensor) -> Tensor:
    """`boxes` (A, 4), those that are not finite, or whose area is not, shrunk to a point."""
    if sync_is_free(boxes) and boxes.norm().item() < FAR:
        return boxes
    return keep_boxes(boxes, area_of_planes(boxes.t()).isfinite())


def keep_boxes(boxes: Tensor, kept: Tensor) -> Tensor:
    """`boxes` (M, 4), those that are not kept shrunk to a point that overlaps nothing."""
    return torch.where(kept[:, None], boxes, 0)
