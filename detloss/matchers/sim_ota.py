"""Simplified optimal transport: the cheapest predictions near the centre of a ground truth."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from torch import Tensor

from detloss.boxes.planes import as_points
from detloss.matchers.dynamic_k import DynamicKMatcher
from detloss.matchers.pairs import Pairs, blocks_of_overlapping, reaches
from detloss.matchers.scene import Scene
from detloss.registry import MATCHERS, Fraction, NonNegative, Positive, PositiveInt
from detloss.tensors import widen

Convention = Literal["yolox", "mmdet"]
LOG_FLOOR = -100.0
"""Logarithms of probabilities are cut there, so that the cost of a certain answer is finite."""
FAR = {"yolox": 1e6, "mmdet": 1e5}
"""Cost of an anchor that is not near the centre of the ground truth."""
EPSILON = {"yolox": 1e-8, "mmdet": 1e-7}
"""Keeps the logarithm of an IoU of 0 finite."""


@MATCHERS.register("sim_ota")
class SimOTAMatcher(DynamicKMatcher):
    """SimOTA: each ground truth takes its k cheapest predictions, k by its best overlaps.

    The cost of anchor and ground truth is ``sum_c BCE(q_c, y_c) - iou_weight ln(u + eps)``: ``q_c =
    sqrt(p_c o)`` from the probabilities of class and objectness, y the one-hot class of the ground
    truth, u the IoU of the predicted box with it. k is the sum of the `topk` largest u among the
    candidates, rounded down, at least 1. An anchor that several have taken goes to the ground truth
    of the image for which it is cheapest; of equal costs the first are taken.

    An anchor is near a ground truth if its centre is within `radius` sides of the anchor of its
    centre, along x and y. Implementations differ in what a `convention` names:

    - "yolox", the authors': candidates are the anchors near any ground truth of the image; those
      not near this one cost 1e6 more. Their present code has radius 1.5, the paper's had 2.5.
    - "mmdet": candidates are the anchors near or inside any ground truth; those that are not both
      near and inside this one cost 1e5 more.

    So a ground truth may take anchors that are not near it, where it has too few. It keeps none
    where it overlaps no anchor, the image has no candidate, or others win all that it took.

    Args:
        topk: The overlaps that are added up, and the most anchors that a ground truth takes.
        radius: How near a centre is, in sides of the anchor.
        iou_weight: Weight of the overlap in the cost, >= 0.
        convention: See above.
        ignore_overlap: Share of an anchor's area in an ignore region from which it is ignored.

    Example:
        >>> points = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [80, 80, 88, 88]])
        >>> matches = SimOTAMatcher()(
        ...     points,
        ...     torch.tensor([[0.0, 0, 8, 8]]),
        ...     gt_labels=torch.tensor([0]),
        ...     class_logits=torch.zeros(3, 1),
        ...     pred_boxes=points,
        ...     objectness=torch.zeros(3),
        ... )
        >>> matches.positive
        tensor([ True, False, False])

    Reference:
        Ge et al., "YOLOX: Exceeding YOLO Series in 2021", arXiv:2107.08430, section 2.1.
    """

    needs: ClassVar[frozenset[str]] = frozenset(
        {"gt_labels", "class_logits", "pred_boxes", "objectness"}
    )

    def __init__(
        self,
        *,
        topk: PositiveInt = 10,
        radius: Positive = 1.5,
        iou_weight: NonNegative = 3.0,
        convention: Convention = "yolox",
        ignore_overlap: Fraction = 0.5,
    ) -> None:
        super().__init__()
        self.topk = topk
        self.radius = radius
        self.iou_weight = iou_weight
        self.convention = convention
        self.ignore_overlap = ignore_overlap

    def wanted(self, scene: Scene) -> Iterator[Pairs]:
        """See `DynamicKMatcher.wanted`."""
        yield from blocks_of_overlapping(scene, self._around(scene), as_points(scene.truths.boxes))
        if self.convention == "mmdet":
            yield from blocks_of_overlapping(scene, scene.centres, scene.truths.boxes)

    def cost_of_no_class(self, scene: Scene) -> Tensor:
        """See `DynamicKMatcher.cost_of_no_class`."""
        assert scene.class_logits is not None
        q = widen(scene.class_logits).sigmoid().mul_(_objectness(scene)[:, None]).sqrt_()
        return -_log(1 - q).sum(1)

    def cost(
        self, scene: Scene, row: Tensor, anchor: Tensor, overlap: Tensor, of_no_class: Tensor
    ) -> Tensor:
        """See `DynamicKMatcher.cost`."""
        near = reaches(scene, self._around(scene), as_points(scene.truths.boxes), row, anchor)
        if self.convention == "mmdet":
            near &= reaches(scene, scene.centres, scene.truths.boxes, row, anchor)
        q = (scene.logit(row, anchor).sigmoid() * _objectness(scene)[anchor]).sqrt()
        of_class = of_no_class + _log(1 - q) - _log(q)
        of_box = -(overlap + EPSILON[self.convention]).log() * self.iou_weight
        return of_class + of_box + ~near * FAR[self.convention]

    def _around(self, scene: Scene) -> Tensor:
        """(G, A, 4) where the centre of a ground truth lies that an anchor is near to."""
        reach = (scene.anchors[..., 2:] - scene.anchors[..., :2]) * self.radius
        return scene.centres + torch.cat([-reach, reach], -1)


def _objectness(scene: Scene) -> Tensor:
    """(B A,) probability of an object."""
    assert scene.objectness is not None
    return widen(scene.objectness).sigmoid()


def _log(probability: Tensor) -> Tensor:
    return probability.log().clamp(min=LOG_FLOOR)
