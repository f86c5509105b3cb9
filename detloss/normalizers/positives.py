"""The loss of a batch over its positive anchors."""

from torch import Tensor

from detloss.normalizers.base import Counts, Normalizer, batch_divisor
from detloss.registry import NORMALIZERS


@NORMALIZERS.register("positives")
class PositivesNormalizer(Normalizer):
    """Divides by the positive anchors of the whole batch, at least 1.

    Args:
        sync: Whether the batch is that of all ranks, see `Normalizer`.

    Example:
        >>> import torch
        >>> PositivesNormalizer()(Counts(positives=torch.tensor([4, 0])))
        tensor([4., 4.])

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002,
        section 4.1: the sum over all anchors, divided by those assigned to a ground truth.
    """

    def __init__(self, *, sync: bool = False) -> None:
        super().__init__()
        self.sync = sync

    def forward(self, counts: Counts) -> Tensor:
        """See `Normalizer.forward`."""
        return batch_divisor(counts.positives, sync=self.sync)
