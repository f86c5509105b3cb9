"""Uniform matching of YOLOF: a ground truth takes as many anchors as any other."""

from typing import ClassVar

import torch
from torch import Tensor

from detloss.boxes import paired_overlap
from detloss.boxes.planes import iou_of_planes, share_area
from detloss.matchers.base import Assigned, Matcher
from detloss.matchers.images import Images
from detloss.matchers.nearest import smallest_in_order
from detloss.matchers.regions import finite_only
from detloss.matchers.tiles import largest_of_each_anchor, rows_of_a_block
from detloss.registry import MATCHERS, Fraction, PositiveInt
from detloss.tensors import sync_is_free, widen


@MATCHERS.register("uniform")
class UniformMatcher(Matcher):
    """Each ground truth takes the anchors that are nearest, and those whose predictions are.

    It takes the `topk` anchors whose predicted boxes are nearest to it, and the `topk` anchors that
    are so themselves. Near is the sum of the distances in x and y of the centre, in width and in
    height; of equal ones the first are taken. Such a pair of anchor and ground truth counts if
    their IoU, of the anchor itself, reaches `positive`.

    An anchor may be in several pairs, of one ground truth or of several: `Matches.pairs` lists all
    that count, once for each time that they were taken. Of all pairs of an anchor, counted or not,
    the last one says what becomes of it, in this order: by how near they are in their ground
    truth's list, then predictions before anchors, then the number of the ground truth. If that pair
    counts, `target_index` names its ground truth; if it does not, the anchor is ignored. Of the
    anchors without a pair those are ignored whose predicted box has an IoU above `negative` with a
    ground truth.

    A ground truth keeps no anchor where the IoUs of its pairs are too low, or others come later in
    all of them. One that overlaps no anchor has no pairs.

    Args:
        topk: How many anchors a ground truth takes by themselves, and how many by predictions.
        positive: IoU of anchor and ground truth from which a pair counts, in [0, 1]; an IoU of 0
            never does.
        negative: IoU of predicted box and ground truth up to which an anchor is background.
        ignore_overlap: Share of an anchor's area in an ignore region from which it is ignored.

    Example:
        The first anchor is nearest itself, the prediction of the second is:

        >>> anchors = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [50, 50, 60, 60]])
        >>> predicted = torch.tensor([[5.0, 5, 15, 15], [0, 0, 10, 9], [50, 50, 60, 60]])
        >>> matches = UniformMatcher(topk=1)(
        ...     anchors, torch.tensor([[0.0, 0, 10, 10]]), pred_boxes=predicted
        ... )
        >>> matches.pairs
        tensor([[1, 0],
                [0, 0]])

    Reference:
        Chen et al., "You Only Look One-level Feature" (YOLOF), CVPR 2021, arXiv:2103.09460, section
        4.2.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"pred_boxes"})
    needs_sizes = True

    def __init__(
        self,
        *,
        topk: PositiveInt = 4,
        positive: Fraction = 0.15,
        negative: Fraction = 0.7,
        ignore_overlap: Fraction = 0.5,
    ) -> None:
        super().__init__()
        self.topk = topk
        self.positive = positive
        self.negative = negative
        self.ignore_overlap = ignore_overlap

    def match(self, images: Images) -> Assigned:
        """See `Matcher.match`."""
        assert images.pred_boxes is not None
        anchors, truths = images.anchors, images.truths
        predicted = finite_only(widen(images.pred_boxes))
        dtype = torch.promote_types(anchors.dtype, predicted.dtype)
        truths, predicted = truths.to(dtype), predicted.to(dtype)
        claims, taken = _taken(anchors, predicted, truths, min(self.topk, anchors.shape[1]))

        # (B, P), in the order in which pairs say what becomes of their anchor
        anchor = taken.permute(0, 3, 1, 2).flatten(1)
        place = torch.arange(anchor.shape[1], device=anchor.device)
        truth = (place % truths.shape[1]).expand_as(anchor)
        overlap = paired_overlap(_rows(anchors, anchor), _rows(truths, truth))
        claimed = claims.gather(1, truth)
        counts = claimed & (overlap >= self.positive) & (overlap > 0)

        last = torch.full(anchors.shape[:2], -1, device=anchor.device)
        last = last.scatter_reduce(1, anchor, torch.where(claimed, place, -1), "amax")
        decided, last = last >= 0, last.clamp(min=0)
        best, _ = largest_of_each_anchor(predicted, truths, iou_of_planes)
        pairs = torch.stack([anchor, truth], -1)
        listed = sync_is_free(counts)  # then there is one image
        return Assigned(
            target_index=truth.gather(1, last),
            positive=decided & counts.gather(1, last),
            ignored=decided | (best > self.negative) | images.in_ignore_region(self.ignore_overlap),
            pairs=[pairs[counts]] if listed else pairs.unbind(),
            is_pair=None if listed else counts.unbind(),
        )


def _taken(anchors: Tensor, predicted: Tensor, truths: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Which ground truths may take anchors, and which they take.

    Args:
        anchors: (B, A, 4).
        predicted: (B, A, 4).
        truths: (B, M, 4).
        count: How many to take.

    Returns:
        (B, M) bool, and (B, 2, M, count) indices of anchors, the nearest first: by their
        predictions, then by themselves.
    """
    images, objects = truths.shape[:2]
    claims = torch.empty(images, objects, dtype=torch.bool, device=truths.device)
    taken = torch.empty(images, 2, objects, count, dtype=torch.long, device=truths.device)
    rows = rows_of_a_block(anchors, objects, images * anchors.shape[1])
    planes = anchors.movedim(-1, 0)[:, :, None]
    kinds = [_centre_and_size(boxes)[:, :, None] for boxes in (predicted, anchors)]
    first = 0
    for of_truths in torch.split(truths, rows, 1):
        some = slice(first, first + of_truths.shape[1])
        first = some.stop
        has_area = (of_truths[..., 2:] > of_truths[..., :2]).all(-1)
        meets = share_area(planes, of_truths.movedim(-1, 0)[..., None])
        claims[:, some] = has_area & meets.any(-1)
        for kind, of_boxes in enumerate(kinds):
            distance = _distance(of_boxes, _centre_and_size(of_truths)[..., None])
            _, nearest = smallest_in_order(distance.flatten(0, 1), count)
            taken[:, kind, some] = nearest.view(images, -1, count)
    return claims, taken


def _distance(some: Tensor, others: Tensor) -> Tensor:
    """Sum of the absolute differences of centres and sizes (4, ...), which broadcast."""
    distance = (some[0] - others[0]).abs_()
    for one, other in zip(some[1:], others[1:], strict=True):
        distance += (one - other).abs_()
    return distance


def _centre_and_size(boxes: Tensor) -> Tensor:
    """(4, ...) of boxes (..., 4)."""
    first, last = boxes.movedim(-1, 0).chunk(2)
    return torch.cat([first / 2 + last / 2, last - first])


def _rows(boxes: Tensor, index: Tensor) -> Tensor:
    """(B, P, 4) the boxes (B, N, 4) of that index (B, P)."""
    return boxes.gather(1, index[..., None].expand(-1, -1, 4))
