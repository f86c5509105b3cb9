"""The loss of a batch over a fixed number."""

import torch
from torch import Tensor

from detloss.normalizers.base import Counts, Normalizer, ranks
from detloss.registry import NORMALIZERS, Positive


@NORMALIZERS.register("constant")
class ConstantNormalizer(Normalizer):
    """Divides by the same number in every step.

    Args:
        value: The number, > 0.
        sync: Whether it divides the sum over all ranks, see `Normalizer`.

    Example:
        >>> ConstantNormalizer(value=256.0)(Counts(positives=torch.tensor([4, 0])))
        tensor([256., 256.])

    Reference:
        Ren et al., "Faster R-CNN", NeurIPS 2015, arXiv:1506.01497, section 3.1.2: the
        mini-batch size, 256.
    """

    def __init__(self, *, value: Positive, sync: bool = False) -> None:
        super().__init__()
        self.value = value
        self.sync = sync

    def forward(self, counts: Counts) -> Tensor:
        """See `Normalizer.forward`."""
        divisor = torch.full_like(counts.positives, self.value, dtype=torch.float32)
        return divisor / ranks(sync=self.sync)
