"""Max-IoU matching: an anchor is assigned to the ground truth that it overlaps most."""

import torch
from torch import Tensor

from detloss.boxes.planes import iou_of_planes
from detloss.matchers.base import Assigned, Matcher, Matches
from detloss.matchers.images import Images
from detloss.matchers.tiles import Running, Tiles, blocks_of_boxes, most_overlapped
from detloss.registry import MATCHERS, Fraction
from detloss.tensors import check_floating, sync_is_free, widen


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

    needs_sizes = True

    def __init__(
        self,
        *,
        positive: Fraction = 0.5,
        negative: Fraction = 0.4,
        low_quality: bool = True,
        ignore_overlap: Fraction = 0.5,
    ) -> None:
        super().__init__()
        _check_thresholds(positive, negative)
        self.positive = positive
        self.negative = negative
        self.low_quality = low_quality
        self.ignore_overlap = ignore_overlap

    def match(self, images: Images) -> Assigned:
        """By overlaps alone; see `Matcher.match`."""
        in_tiles = sync_is_free(images.anchors)
        best, is_best, index = self._in_tiles(images) if in_tiles else self._at_once(images)
        positive = best >= self.positive if self.positive > 0 else best > 0
        if is_best is not None:
            positive |= is_best
        if index is None:
            index = most_overlapped(images.anchors, images.truths, positive)
        ignored = best >= self.negative
        return Assigned(index, positive, ignored | images.in_ignore_region(self.ignore_overlap))

    def _at_once(self, images: Images) -> tuple[Tensor, Tensor | None, Tensor]:
        """Of each anchor the largest IoU, whether it is a truth's best, and the truth; all (B, A).

        The second is for the low-quality rule; None without it.
        """
        running, is_best = Running(), None
        for truths, anchors in blocks_of_boxes(images.anchors, images.truths):
            overlap = iou_of_planes(truths, anchors)
            running.add(overlap)
            if self.low_quality:
                found = (overlap == _if_any(overlap.amax(2, keepdim=True))).any(1)
                is_best = found if is_best is None else is_best | found
        return running.largest, is_best, running.index

    def _in_tiles(self, images: Images) -> tuple[Tensor, Tensor | None, None]:
        """The same on a CPU, but for the truth, which is better looked for when it is needed.

        The IoU of a pair is computed twice rather than kept: first for the largest of each truth,
        then to find the anchors that have it.
        """
        tiles = Tiles(images.anchors[0], images.truths[0])
        best = tiles.new_zeros()
        best_in_tile = tiles.new_zeros(by_box=True)
        for chosen, near in tiles.blocks():
            overlap = iou_of_planes(*tiles.pairs(chosen, near))
            best[chosen] = overlap.amax(1)
            if self.low_quality:
                best_in_tile[chosen[:, None], near] = overlap.amax(2)
        if not self.low_quality:
            return tiles.untiled(best)[None], None, None

        best_of_truth = _if_any(best_in_tile.amax(0))
        is_best = tiles.new_zeros(dtype=torch.bool)
        # only tiles with a truth's best; the same arithmetic, to the bit
        for chosen, near in tiles.blocks_of(best_in_tile == best_of_truth):
            overlap = iou_of_planes(*tiles.pairs(chosen, near))
            row, _, place = (overlap == best_of_truth[near][..., None]).nonzero().unbind(1)
            is_best[chosen[row], place] = True
        return tiles.untiled(best)[None], tiles.untiled(is_best)[None], None


@torch.no_grad()
def match_matrix(
    overlap: Tensor, *, positive: float = 0.5, negative: float = 0.4, low_quality: bool = True
) -> Matches:
    """The matches of `MaxIoUMatcher` from a ready matrix of overlaps, of whatever kind.

    Args:
        overlap: (M, A) of ground truths and anchors, floating point; M may be 0. NaN counts as 0.
        positive: Overlap from which an anchor is positive; one of 0 never is.
        negative: Overlap below which it is background, at most `positive`.
        low_quality: Whether each ground truth also has the anchors that overlap it most.

    Returns:
        Matches of A anchors, as `DetectorLoss` takes them.

    Raises:
        TypeError: If the overlaps are not floating point.
        ValueError: If the shape is wrong, or `negative` is greater than `positive`.

    Example:
        >>> match_matrix(torch.tensor([[0.6, 0.45, 0.1], [0.0, 0.2, 0.3]])).positive
        tensor([ True, False,  True])
    """
    check_floating("overlap", overlap)
    if overlap.ndim != 2:
        raise ValueError(f"overlap must have shape (M, A), got {tuple(overlap.shape)}")
    _check_thresholds(positive, negative)
    rows = widen(overlap).nan_to_num(0)
    if not len(rows):
        rows = rows.new_zeros(1, rows.shape[1])
    best, index = rows.max(0)
    is_positive = (best >= positive) & (best > 0)
    if low_quality and rows.shape[1]:
        is_positive |= (rows == _if_any(rows.amax(1, keepdim=True))).any(0)
    ignored = (best >= negative) & ~is_positive
    return Matches(torch.where(is_positive, index, 0), is_positive, ignored)


def _check_thresholds(positive: float, negative: float) -> None:
    if negative > positive:
        raise ValueError(f"negative must be at most positive ({positive}), got {negative}")


def _if_any(best_of_truth: Tensor) -> Tensor:
    """The largest IoU of each ground truth, infinite where it overlaps nothing: no anchor's."""
    return torch.where(best_of_truth > 0, best_of_truth, torch.inf)
