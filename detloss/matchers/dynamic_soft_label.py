"""The cheapest predictions of a ground truth, by a cost whose class label is the overlap."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from detloss.kernels.elementary import cross_entropy
from detloss.matchers.dynamic_k import DynamicKMatcher
from detloss.matchers.pairs import Pairs, blocks_of_overlapping
from detloss.matchers.scene import Scene, take
from detloss.registry import MATCHERS, Fraction, NonNegative, PositiveInt
from detloss.tensors import widen

EPSILON = 1e-7
"""Keeps the logarithm of an IoU of 0 finite."""


@MATCHERS.register("dynamic_soft_label")
class DynamicSoftLabelMatcher(DynamicKMatcher):
    """Dynamic soft labels: the k cheapest predictions, k by the best overlaps of the ground truth.

    The cost of anchor and ground truth is ``sum_c |y_c - p_c|^2 BCE(p_c, y_c) - iou_weight ln(u +
    1e-7) + 10^(d - center_radius)``: p the class probabilities, u the IoU of the predicted box with
    the ground truth, ``y_c = u`` for its class and 0 for others, d the distance of their centres in
    sides of the anchor. k is the sum of the `topk` largest u among the candidates, rounded down, at
    least 1. An anchor that several have taken goes to the ground truth of the image for which it is
    cheapest; of equal costs the first are taken. The score of a positive is u.

    Candidates are the anchors whose centre is inside any ground truth of the image, so a ground
    truth may take anchors outside itself where it has too few. It keeps none where it overlaps no
    anchor, the image has no candidate, or others win all that it took.

    Args:
        topk: The overlaps that are added up, and the most anchors that a ground truth takes.
        iou_weight: Weight of the overlap in the cost, >= 0.
        center_radius: Distance from which an anchor is expensive, in sides of the anchor; None for
            no such cost (NanoDet-Plus).
        ignore_overlap: Share of an anchor's area in an ignore region from which it is ignored.

    Example:
        >>> points = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [80, 80, 88, 88]])
        >>> matches = DynamicSoftLabelMatcher()(
        ...     points,
        ...     torch.tensor([[0.0, 0, 16, 8]]),
        ...     gt_labels=torch.tensor([0]),
        ...     class_logits=torch.zeros(3, 1),
        ...     pred_boxes=points,
        ... )
        >>> matches.positive, matches.score
        (tensor([ True, False, False]), tensor([0.5000, 0.0000, 0.0000]))

    Reference:
        Lyu et al., "RTMDet: An Empirical Study of Designing Real-Time Object Detectors",
        arXiv:2212.07784, section 3.3.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gt_labels", "class_logits", "pred_boxes"})
    scores: ClassVar[bool] = True

    def __init__(
        self,
        *,
        topk: PositiveInt = 13,
        iou_weight: NonNegative = 3.0,
        center_radius: NonNegative | None = 3.0,
        ignore_overlap: Fraction = 0.5,
    ) -> None:
        super().__init__()
        self.topk = topk
        self.iou_weight = iou_weight
        self.center_radius = center_radius
        self.ignore_overlap = ignore_overlap

    def wanted(self, scene: Scene) -> Iterator[Pairs]:
        """See `DynamicKMatcher.wanted`."""
        yield from blocks_of_overlapping(scene, scene.centres, scene.truths.boxes)

    def cost_of_no_class(self, scene: Scene) -> Tensor:
        """See `DynamicKMatcher.cost_of_no_class`."""
        assert scene.class_logits is not None
        logits = widen(scene.class_logits)
        return _modulated(logits, logits.new_zeros(())).sum(1)

    def cost(
        self, scene: Scene, row: Tensor, anchor: Tensor, overlap: Tensor, of_no_class: Tensor
    ) -> Tensor:
        """See `DynamicKMatcher.cost`."""
        logit = scene.logit(row, anchor)
        cost = of_no_class - _modulated(logit, overlap.new_zeros(())) + _modulated(logit, overlap)
        cost = cost - (overlap + EPSILON).log() * self.iou_weight
        if self.center_radius is None:
            return cost
        boxes, truths = scene.boxes_at(anchor), take(scene.truths.boxes, row)
        offset = (boxes[..., :2] + boxes[..., 2:] - truths[..., :2] - truths[..., 2:]) / 2
        distance = offset.square().sum(-1).sqrt() / (boxes[..., 2] - boxes[..., 0])
        return cost + torch.pow(10, distance - self.center_radius)


def _modulated(logit: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy times the squared difference of label and probability."""
    return cross_entropy(logit, label) * (label - logit.sigmoid()).square()
