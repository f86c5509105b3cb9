"""IoU of the predicted box with its ground truth."""

from torch import Tensor

from detloss.boxes import OverlapKind, paired_overlap
from detloss.qualities.base import Positives, Quality
from detloss.registry import QUALITIES, Fraction


@QUALITIES.register("iou")
class IoUQuality(Quality):
    """``max(overlap, floor)`` of the decoded prediction with the ground truth.

    As a label it makes the class score say how well the box fits, so that a ranking by score keeps
    the boxes that fit best.

    Args:
        kind: See `detloss.boxes.paired_overlap`.
        reads: Name of the prediction, of a head that refines its boxes that of the refined ones.
        floor: The least quality, in [0, 1].

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> boxes = torch.tensor([[0.0, 0, 2, 2]])
        >>> positives = SimpleNamespace(pred_boxes=lambda name: boxes, truth_boxes=boxes / 2)
        >>> IoUQuality()(positives)
        tensor([0.2500])

    Reference:
        Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388, section 3.
    """

    def __init__(
        self, *, kind: OverlapKind = "iou", reads: str = "box_regression", floor: Fraction = 0.0
    ) -> None:
        super().__init__()
        self.kind = kind
        self.reads = reads
        self.floor = floor
        self.needs = frozenset({reads})

    def forward(self, positives: Positives) -> Tensor:
        """See `Quality.forward`."""
        predicted = positives.pred_boxes(self.reads)
        overlap = paired_overlap(predicted, positives.truth_boxes, kind=self.kind)
        return overlap.clamp(min=self.floor)
