"""The mean over images of each one's loss over its own positive anchors."""

from torch import Tensor

from detloss.normalizers.base import Counts, Normalizer
from detloss.registry import NORMALIZERS


@NORMALIZERS.register("per_image")
class PerImageNormalizer(Normalizer):
    """Divides each image's sum by its positive anchors, at least 1, and by the number of images.

    An image with few positives counts as much as one with many. This is how torchvision's
    RetinaNet normalises.

    Example:
        >>> import torch
        >>> PerImageNormalizer()(Counts(positives=torch.tensor([4, 0])))
        tensor([8, 2])

    Reference:
        torchvision, ``torchvision.models.detection.RetinaNet``, ``compute_loss``.
    """

    def forward(self, counts: Counts) -> Tensor:
        """See `Normalizer.forward`."""
        return counts.positives.clamp(min=1) * len(counts.positives)
