"""The loss of a batch over its ground truths."""

from torch import Tensor

from detloss.normalizers.base import Counts, Normalizer, batch_divisor, counted
from detloss.registry import NORMALIZERS


@NORMALIZERS.register("ground_truths")
class GroundTruthsNormalizer(Normalizer):
    """Divides by the boxes to learn of the whole batch, at least 1; boxes to ignore do not count.

    Args:
        sync: Whether the batch is that of all ranks, see `Normalizer`.

    Example:
        >>> import torch
        >>> counts = Counts(positives=torch.tensor([4, 0]), ground_truths=torch.tensor([2, 1]))
        >>> GroundTruthsNormalizer()(counts)
        tensor([3., 3.])

    Reference:
        Carion et al., "End-to-End Object Detection with Transformers" (DETR), ECCV 2020,
        arXiv:2005.12872: box losses are normalised by the number of objects in the batch.
    """

    def __init__(self, *, sync: bool = False) -> None:
        super().__init__()
        self.sync = sync

    def forward(self, counts: Counts) -> Tensor:
        """See `Normalizer.forward`."""
        return batch_divisor(counted("ground_truths", counts.ground_truths), sync=self.sync)
