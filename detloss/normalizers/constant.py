"""The loss of a batch over a fixed number."""

import torch
from torch import Tensor

from detloss.normalizers.base import Normalizer, TermRows
from detloss.registry import NORMALIZERS, Positive


@NORMALIZERS.register("constant")
class ConstantNormalizer(Normalizer):
    """Divides by the same number in every step.

    Args:
        value: The number, > 0.
        sync: Whether it divides the sum over all ranks, see `Normalizer`.

    Example:
        >>> ConstantNormalizer(value=256.0)
        ConstantNormalizer(value=256.0, sync=False)

    Reference:
        Ren et al., "Faster R-CNN", NeurIPS 2015, arXiv:1506.01497, section 3.1.2: the
        mini-batch size, 256.
    """

    def __init__(self, *, value: Positive, sync: bool = False) -> None:
        super().__init__()
        self.value = value
        self.sync = sync

    def local(self, rows: TermRows) -> Tensor:
        """See `Normalizer.local`: nothing is counted."""
        return rows.positive.new_zeros(0, dtype=torch.float32)

    def divisor(self, total: Tensor, rows: TermRows, ranks: int) -> Tensor:
        """See `Normalizer.divisor`."""
        return total.new_full((), self.value / ranks)
