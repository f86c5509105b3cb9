"""Matching of YOLOv3: the anchors that overlap a ground truth most, of cells with a centre."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from detloss.boxes import anchor_strides
from detloss.boxes.planes import has_centre, iou_of_planes
from detloss.matchers.base import Assigned, Matcher
from detloss.matchers.images import Images
from detloss.matchers.tiles import blocks_of_boxes, largest_of_each_anchor
from detloss.registry import MATCHERS, Fraction, Positive
from detloss.tensors import sync_is_free


@MATCHERS.register("grid")
class GridMatcher(Matcher):
    """Anchors of the cells in which a ground truth's centre lies answer for what they overlap most.

    A cell is responsible if the centre of any ground truth lies in it. An anchor of such a cell
    whose largest IoU is above `positive` is assigned to the ground truth that it overlaps most, the
    first of equal ones. Then each ground truth takes the anchor of a responsible cell that overlaps
    it most, whoever had it, and all that overlap it equally; of several ground truths with one best
    anchor the last has it. Of the other anchors those are ignored whose largest IoU is above
    `negative`, and the rest is background.

    So a ground truth may take an anchor of a cell in which its own centre does not lie. It keeps
    none where it overlaps no anchor of a responsible cell, or others take all that it overlaps
    most.

    Args:
        positive: IoU above which an anchor of a responsible cell is positive, in [0, 1].
        negative: IoU up to which an anchor that is not positive is background, at most `positive`.
        strides: Stride of each pyramid level, the side of its cells, in the order of
            ``level_sizes``; anchors lie around the centres of their cells. None where the anchors
            are the cells themselves.
        ignore_overlap: Share of a background anchor's area inside one ignore region from which
            the anchor is ignored, in [0, 1].

    Raises:
        ValueError: If `negative` is greater than `positive`.

    Example:
        Two sizes of anchors at two cells of a stride of 8. The centre of the box is in the first:

        >>> anchors = torch.tensor(
        ...     [[0.0, 0, 8, 8], [-4, -4, 12, 12], [8, 0, 16, 8], [4, -4, 20, 12]]
        ... )
        >>> matches = GridMatcher(strides=[8])(
        ...     anchors, torch.tensor([[0.0, -2, 14, 12]]), level_sizes=[4]
        ... )
        >>> matches.positive
        tensor([False,  True, False, False])

    Reference:
        Redmon and Farhadi, "YOLOv3: An Incremental Improvement", 2018, arXiv:1804.02767, section
        2.1, as mmdetection has it.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"level_sizes"})
    needs_sizes = True

    def __init__(
        self,
        *,
        positive: Fraction = 0.5,
        negative: Fraction = 0.5,
        strides: Sequence[Positive] | None = None,
        ignore_overlap: Fraction = 0.5,
    ) -> None:
        super().__init__()
        if negative > positive:
            raise ValueError(f"negative must be at most positive ({positive}), got {negative}")
        self.positive = positive
        self.negative = negative
        self.strides = None if strides is None else [float(stride) for stride in strides]
        self.ignore_overlap = ignore_overlap

    def match(self, images: Images) -> Assigned:
        """By centres and overlaps; see `Matcher.match`."""
        anchors, truths = images.anchors, images.truths
        cells = self._cells(images)
        of_cells, _ = largest_of_each_anchor(
            cells, truths, lambda truths, cells: has_centre(truths, cells).to(cells.dtype)
        )
        responsible = of_cells > 0
        largest, index = largest_of_each_anchor(anchors, truths, iou_of_planes)
        best_of = _best_of(anchors, truths, responsible)
        return Assigned(
            target_index=torch.where(best_of < 0, index, best_of),
            positive=responsible & (largest > self.positive) | (best_of >= 0),
            ignored=(largest > self.negative) | images.in_ignore_region(self.ignore_overlap),
        )

    def _cells(self, images: Images) -> Tensor:
        """(B, A, 4) the cell of each anchor."""
        anchors = images.anchors
        if self.strides is None:
            return anchors
        assert images.level_sizes is not None
        half = anchor_strides(
            images.level_sizes, self.strides, device=anchors.device, dtype=anchors.dtype
        )
        half = half[:, None] / 2
        centre = anchors[..., :2] / 2 + anchors[..., 2:] / 2
        return torch.cat([centre - half, centre + half], -1)


def _best_of(anchors: Tensor, truths: Tensor, may: Tensor) -> Tensor:
    """(B, A) the last ground truth of which an anchor is the best one, -1 for none.

    Args:
        anchors: (B, A, 4).
        truths: (B, M, 4), M >= 1.
        may: (B, A) bool, the anchors that come into question.
    """
    best_of = torch.full_like(may, -1, dtype=torch.long)
    if sync_is_free(may) and not may.all():  # on a CPU only those, which are few
        place = may[0].nonzero().view(-1)
        if not len(place):
            return best_of
        few = _best_of(anchors[:, place], truths, may[:, place])
        return best_of.index_copy_(1, place, few)
    first = 0
    for some, all_anchors in blocks_of_boxes(anchors, truths):
        overlap = torch.where(may[:, None], iou_of_planes(some, all_anchors), 0)
        is_best = (overlap == overlap.amax(2, keepdim=True)) & (overlap > 0)
        number = torch.arange(first, first + overlap.shape[1], device=may.device)[:, None]
        best_of = torch.maximum(best_of, torch.where(is_best, number, -1).amax(1))
        first += overlap.shape[1]
    return best_of
