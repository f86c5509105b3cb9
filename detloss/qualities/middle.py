"""How much of an anchor lies in the middle of an object."""

import torch
from torch import Tensor

from detloss.boxes.planes import iof_of_planes, middle_of
from detloss.qualities.base import HeatQuality
from detloss.registry import QUALITIES, Fraction


@QUALITIES.register("middle")
class MiddleQuality(HeatQuality):
    """``|A n M| / |A|``, the share of the anchor A in the middle M of the ground truth.

    The middle is the region around the centre of the ground truth that has `region` times its
    sides.

    Args:
        region: Sides of the middle, in sides of the ground truth, in [0, 1].
        least: The share up to which the quality is 0, in [0, 1].

    Example:
        >>> from types import SimpleNamespace
        >>> anchors, truths = torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[0.0, 0, 20, 40]])
        >>> MiddleQuality(region=0.5)(SimpleNamespace(anchors=anchors, truth_boxes=truths))
        tensor([0.])
        >>> MiddleQuality(region=0.8)(SimpleNamespace(anchors=anchors, truth_boxes=truths))
        tensor([0.3750])

    Reference:
        Zhu et al., "Feature Selective Anchor-Free Module for Single-Shot Object Detection" (FSAF),
        CVPR 2019, arXiv:1903.00621, "Ground-truth and Loss": the effective region of an object.
    """

    def __init__(self, *, region: Fraction = 0.2, least: Fraction = 0.01) -> None:
        super().__init__()
        self.region = region
        self.least = least

    def of_planes(self, truths: Tensor, anchors: Tensor) -> Tensor:
        """See `HeatQuality.of_planes`."""
        share = iof_of_planes(anchors, middle_of(truths, self.region))
        return torch.where(share > self.least, share, 0)
