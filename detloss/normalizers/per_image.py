"""The mean over images of each one's loss over its own positive anchors."""

from torch import Tensor

from detloss.normalizers.base import CountNormalizer, TermRows
from detloss.registry import NORMALIZERS


@NORMALIZERS.register("per_image")
class PerImageNormalizer(CountNormalizer):
    """Short for ``{type: positives, per: image}``.

    An image with few positives counts as much as one with many. This is how torchvision's
    RetinaNet normalises.

    Args:
        sync: Whether the images are those of all ranks, see `Normalizer`; it matters where ranks
            have batches of different sizes.

    Example:
        >>> PerImageNormalizer()
        PerImageNormalizer(sync=False)

    Reference:
        torchvision, ``torchvision.models.detection.RetinaNet``, ``compute_loss``.
    """

    def __init__(self, *, sync: bool = False) -> None:
        super().__init__(per="image", sync=sync)

    def count(self, rows: TermRows) -> Tensor:
        """See `CountNormalizer.count`."""
        return rows.positive
