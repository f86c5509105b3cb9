"""The loss of a batch over the sum of its target scores."""

from torch import Tensor

from detloss.normalizers.base import Counts, Normalizer, batch_divisor, counted
from detloss.registry import NORMALIZERS


@NORMALIZERS.register("target_scores")
class TargetScoresNormalizer(Normalizer):
    """Divides by what the positive anchors of the whole batch are worth together, at least 1.

    A positive anchor is worth what its ground truth weighs: 1 without "weights" in the targets.

    Args:
        sync: Whether the batch is that of all ranks, see `Normalizer`.

    Example:
        >>> import torch
        >>> counts = Counts(positives=torch.tensor([4, 0]), target_scores=torch.tensor([2.5, 0]))
        >>> TargetScoresNormalizer()(counts)
        tensor([2.5000, 2.5000])

    Reference:
        Feng et al., "TOOD: Task-aligned One-stage Object Detection", ICCV 2021,
        arXiv:2108.07755, whose positives are worth their alignment.
    """

    def __init__(self, *, sync: bool = False) -> None:
        super().__init__()
        self.sync = sync

    def forward(self, counts: Counts) -> Tensor:
        """See `Normalizer.forward`."""
        return batch_divisor(counted("target_scores", counts.target_scores), sync=self.sync)
