"""The loss of a batch over its positive anchors."""

from torch import Tensor

from detloss.normalizers.base import Counts, Normalizer
from detloss.registry import NORMALIZERS


@NORMALIZERS.register("positives")
class PositivesNormalizer(Normalizer):
    """Divides by the positive anchors of the whole batch, at least 1.

    Example:
        >>> import torch
        >>> PositivesNormalizer()(Counts(positives=torch.tensor([4, 0])))
        tensor([4, 4])

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002,
        section 4.1: the sum over all anchors, divided by those assigned to a ground truth.
    """

    def forward(self, counts: Counts) -> Tensor:
        """See `Normalizer.forward`."""
        return counts.positives.sum().clamp(min=1).expand(len(counts.positives))
