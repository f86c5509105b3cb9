"""Max-IoU matching: an anchor is assigned to the ground truth that it overlaps most."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from detloss.boxes.planes import iou_of_planes
from detloss.matchers.base import Assigned, Matcher, Matches
from detloss.matchers.images import Images
from detloss.matchers.tiles import Running, Tiles, blocks_of_boxes, most_overlapped
from detloss.options import check_choice
from detloss.registry import MATCHERS, Fraction
from detloss.tensors import check_floating, sync_is_free, widen

Convention = Literal["torchvision", "mmdet"]


@MATCHERS.register("max_iou")
class MaxIoUMatcher(Matcher):
    """Positive above one IoU, background below another, ignored between.

    An anchor is assigned to the ground truth that it overlaps most, to the first of equal ones.
    With the low-quality rule every ground truth also makes positive the anchors that overlap it
    most, ties included, however little that is. One that overlaps no anchor, or is not finite,
    makes none positive. Implementations differ in whom such an anchor is assigned to, which a
    `convention` names:

    - "torchvision", and detectron2: like any other to the ground truth that *it* overlaps most. So
      a ground truth may keep no anchor, even with the rule.
    - "mmdet": to the ground truth that made it positive, to the last of several, also where it
      overlaps another more. (Its RetinaNet also gives every anchor to a ground truth that overlaps
      none.)

    Args:
        positive: IoU from which an anchor is positive, in [0, 1].
        negative: IoU below which it is background, at most `positive`.
        low_quality: Whether the low-quality rule applies.
        convention: See above.
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
        convention: Convention = "torchvision",
        ignore_overlap: Fraction = 0.5,
    ) -> None:
        super().__init__()
        _check_thresholds(positive, negative)
        self.positive = positive
        self.negative = negative
        self.low_quality = low_quality
        self.convention = convention
        self.ignore_overlap = ignore_overlap

    def match(self, images: Images) -> Assigned:
        """By overlaps alone; see `Matcher.match`."""
        found = (self._in_tiles if sync_is_free(images.anchors) else self._at_once)(images)
        positive = found.best >= self.positive if self.positive > 0 else found.best > 0
        if found.is_best is not None:
            positive |= found.is_best
        index = found.truth
        if index is None:
            index = most_overlapped(images.anchors, images.truths, positive)
        if found.is_best is not None and found.is_best_of is not None:
            index = torch.where(found.is_best, found.is_best_of, index)
        ignored = found.best >= self.negative
        return Assigned(index, positive, ignored | images.in_ignore_region(self.ignore_overlap))

    def _at_once(self, images: Images) -> "_Found":
        """Of all images, in as many launches as for one, where memory allows."""
        running, is_best, is_best_of, first = Running(), None, None, 0
        for truths, anchors in blocks_of_boxes(images.anchors, images.truths):
            overlap = iou_of_planes(truths, anchors)
            running.add(overlap)
            if self.low_quality:
                of_block = overlap == _if_any(overlap.amax(2, keepdim=True))
                of_any = of_block.any(1)
                is_best = of_any if is_best is None else is_best | of_any
                if self.convention == "mmdet":
                    last = _last(of_block, first)
                    is_best_of = last if is_best_of is None else torch.maximum(is_best_of, last)
            first += truths.shape[2]
        return _Found(running.largest, running.index, is_best, is_best_of)

    def _in_tiles(self, images: Images) -> "_Found":
        """Of one image on a CPU, without `truth`: `match` looks for that of the positives.

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
            return _Found(tiles.untiled(best)[None])

        best_of_truth = _if_any(best_in_tile.amax(0))
        is_best = tiles.new_zeros(dtype=torch.bool)
        is_best_of = tiles.new_zeros(dtype=torch.long) if self.convention == "mmdet" else None
        # only tiles with a truth's best; the same arithmetic, to the bit
        for chosen, near in tiles.blocks_of(best_in_tile == best_of_truth):
            overlap = iou_of_planes(*tiles.pairs(chosen, near))
            row, column, place = (overlap == best_of_truth[near][..., None]).nonzero().unbind(1)
            is_best[chosen[row], place] = True
            if is_best_of is not None:
                anchor = chosen[row] * is_best.shape[1] + place
                is_best_of.view(-1).scatter_reduce_(0, anchor, near[row, column], "amax")
        if is_best_of is not None:
            is_best_of = tiles.untiled(is_best_of)[None]
        return _Found(tiles.untiled(best)[None], None, tiles.untiled(is_best)[None], is_best_of)


class _Found(NamedTuple):
    """What `MaxIoUMatcher` finds of each anchor, all (B, A).

    Attributes:
        best: Its largest IoU.
        truth: The ground truth that it overlaps most; None where that is not looked for yet.
        is_best: Whether it is a truth's best, for the low-quality rule; None without the rule.
        is_best_of: The last truth whose best it is, any number for none; None where such an anchor
            is assigned like any other.
    """

    best: Tensor
    truth: Tensor | None = None
    is_best: Tensor | None = None
    is_best_of: Tensor | None = None


@torch.no_grad()
def match_matrix(
    overlap: Tensor,
    *,
    positive: float = 0.5,
    negative: float = 0.4,
    low_quality: bool = True,
    convention: Convention = "torchvision",
) -> Matches:
    """The matches of `MaxIoUMatcher` from a ready matrix of overlaps, of whatever kind.

    Args:
        overlap: (M, A) of ground truths and anchors, floating point; M may be 0. NaN counts as 0.
        positive: Overlap from which an anchor is positive; one of 0 never is.
        negative: Overlap below which it is background, at most `positive`.
        low_quality: Whether the anchors that overlap a ground truth most are positive, too.
        convention: Whom these are assigned to; see `MaxIoUMatcher`.

    Returns:
        Matches of A anchors, as `DetectorLoss` takes them.

    Raises:
        TypeError: If the overlaps are not floating point.
        ValueError: If the shape is wrong, `negative` is greater than `positive`, or there is no
            such convention.

    Example:
        >>> match_matrix(torch.tensor([[0.6, 0.45, 0.1], [0.0, 0.2, 0.3]])).positive
        tensor([ True, False,  True])
    """
    check_floating("overlap", overlap)
    if overlap.ndim != 2:
        raise ValueError(f"overlap must have shape (M, A), got {tuple(overlap.shape)}")
    _check_thresholds(positive, negative)
    check_choice("convention", convention, get_args(Convention))
    rows = widen(overlap).nan_to_num(0)
    if not len(rows):
        rows = rows.new_zeros(1, rows.shape[1])
    best, index = rows.max(0)
    is_positive = (best >= positive) & (best > 0)
    if low_quality and rows.shape[1]:
        of_each = rows == _if_any(rows.amax(1, keepdim=True))
        is_best = of_each.any(0)
        is_positive |= is_best
        if convention == "mmdet":
            index = torch.where(is_best, _last(of_each[None])[0], index)
    ignored = (best >= negative) & ~is_positive
    return Matches(torch.where(is_positive, index, 0), is_positive, ignored)


def _last(flags: Tensor, first: int = 0) -> Tensor:
    """(B, A) the last of the K ground truths that are marked in (B, K, A), -1 for none.

    Args:
        flags: Which are marked, bool.
        first: The number of the first of them.
    """
    last = first + flags.shape[1]
    number = torch.arange(first, last, dtype=torch.int32, device=flags.device)
    return torch.where(flags, number[:, None], -1).amax(1).long()


def _check_thresholds(positive: float, negative: float) -> None:
    if negative > positive:
        raise ValueError(f"negative must be at most positive ({positive}), got {negative}")


def _if_any(best_of_truth: Tensor) -> Tensor:
    """The largest IoU of each ground truth, infinite where it overlaps nothing: no anchor's."""
    return torch.where(best_of_truth > 0, best_of_truth, torch.inf)
