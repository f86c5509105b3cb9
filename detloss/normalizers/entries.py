"""The mean of a term over its entries."""

from typing import ClassVar

from torch import Tensor

from detloss.normalizers.base import CountNormalizer, TermRows
from detloss.registry import NORMALIZERS


@NORMALIZERS.register("entries")
class EntriesNormalizer(CountNormalizer):
    """Divides by rows times columns: the entries of the predictions that the term runs over.

    Args: See `CountNormalizer`.

    Example:
        >>> import detloss
        >>> detloss.build_part("normalizer", {"type": "entries", "sync": True}).sync
        True

    Reference:
        Redmon and Farhadi, "YOLOv3", 2018, arXiv:1804.02767, whose successors take means over all
        classes of the rows of a level.
    """

    of_term: ClassVar[bool] = True

    def count(self, rows: TermRows) -> Tensor:
        """See `CountNormalizer.count`."""
        return rows.rows * rows.columns
