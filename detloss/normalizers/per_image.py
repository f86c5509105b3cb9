"""The mean over images of each one's loss over its own positive anchors."""

import torch
from torch import Tensor

from detloss.normalizers.base import Counts, Normalizer, ranks, total
from detloss.registry import NORMALIZERS


@NORMALIZERS.register("per_image")
class PerImageNormalizer(Normalizer):
    """Divides each image's sum by its positive anchors, at least 1, and by the number of images.

    An image with few positives counts as much as one with many. This is how torchvision's
    RetinaNet normalises.

    Args:
        sync: Whether the images are those of all ranks, see `Normalizer`; it matters where ranks
            have batches of different sizes.

    Example:
        >>> PerImageNormalizer()(Counts(positives=torch.tensor([4, 0])))
        tensor([8., 2.])

    Reference:
        torchvision, ``torchvision.models.detection.RetinaNet``, ``compute_loss``.
    """

    def __init__(self, *, sync: bool = False) -> None:
        super().__init__()
        self.sync = sync

    def forward(self, counts: Counts) -> Tensor:
        """See `Normalizer.forward`."""
        images = total(torch.ones_like(counts.positives), sync=self.sync)
        return counts.positives.clamp(min=1) * (images / ranks(sync=self.sync))
