"""The loss of a batch over a number that the caller passes with it."""

from typing import ClassVar

from torch import Tensor

from detloss.normalizers.base import Normalizer, TermRows
from detloss.registry import NORMALIZERS


@NORMALIZERS.register("supplied")
class SuppliedNormalizer(Normalizer):
    """Divides by the ``normalizer=`` of the criterion's call, which must then be given.

    It is for gradient accumulation: pass the positives of all micro-batches to each of them, and
    the gradients add up to those of the full batch.

    Example:
        ``criterion(predictions, targets, anchors=anchors, normalizer=128)``

    Reference:
        None: it is bookkeeping, so that micro-batches equal the batch.
    """

    needs_number: ClassVar[bool] = True

    def local(self, rows: TermRows) -> Tensor:
        """Raises: it is reached only where the caller passed no number.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "normalizer 'supplied' needs a number with each call: "
            "criterion(..., normalizer=number), got None"
        )

    def divisor(self, total: Tensor, rows: TermRows, ranks: int) -> Tensor:
        """Not reached: `local` raises."""
        raise NotImplementedError
