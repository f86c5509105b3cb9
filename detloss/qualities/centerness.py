"""How near an anchor lies to the centre of its ground truth."""

import torch
from torch import Tensor

from detloss.qualities.base import Positives, Quality
from detloss.registry import QUALITIES
from detloss.tensors import widen


@QUALITIES.register("centerness")
class CenternessQuality(Quality):
    """``sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b))``.

    l, t, r, b are the distances from the anchor's centre to the sides of the ground truth: 1 at its
    centre, 0 at its edge and outside.

    Example:
        Three quarters to the left of the middle: 1 to one side, 3 to the other.

        >>> from types import SimpleNamespace
        >>> anchors = torch.tensor([[0.0, 1, 2, 3]])
        >>> truth = torch.tensor([[0.0, 0, 4, 4]])
        >>> CenternessQuality()(SimpleNamespace(anchors=anchors, truth_boxes=truth))
        tensor([0.5774])

    Reference:
        Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019,
        arXiv:1904.01355, equation 3.
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(self, positives: Positives) -> Tensor:
        """See `Quality.forward`."""
        first, last = widen(positives.anchors).chunk(2, -1)
        centre = (first + last) / 2
        begin, end = widen(positives.truth_boxes).chunk(2, -1)
        before, after = centre - begin, end - centre
        nearer, farther = torch.minimum(before, after), torch.maximum(before, after)
        share = nearer.clamp(min=0) / torch.where(farther > 0, farther, 1)
        return share.prod(-1).sqrt()
