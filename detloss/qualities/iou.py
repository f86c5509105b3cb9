"""IoU of the predicted box with its ground truth."""

from typing import ClassVar, Literal

from torch import Tensor

from detloss.boxes import paired_overlap
from detloss.qualities.base import Positives, Quality
from detloss.registry import QUALITIES

Kind = Literal["iou", "giou", "diou", "ciou"]


@QUALITIES.register("iou")
class IoUQuality(Quality):
    """``max(overlap, 0)`` of the decoded prediction with the ground truth.

    As a label it makes the class score say how well the box fits, so that a ranking by score keeps
    the boxes that fit best.

    Args:
        kind: "iou", "giou", "diou" or "ciou", see `detloss.boxes.paired_overlap`.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> boxes = torch.tensor([[0.0, 0, 2, 2]])
        >>> IoUQuality()(SimpleNamespace(pred_boxes=boxes, truth_boxes=boxes / 2))
        tensor([0.2500])

    Reference:
        Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388, section 3.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"box_regression"})

    def __init__(self, *, kind: Kind = "iou") -> None:
        super().__init__()
        self.kind = kind

    def forward(self, positives: Positives) -> Tensor:
        """See `Quality.forward`."""
        overlap = paired_overlap(positives.pred_boxes, positives.truth_boxes, kind=self.kind)
        return overlap.clamp(min=0)
