"""The mean of a term over its rows."""

from typing import ClassVar

from torch import Tensor

from detloss.normalizers.base import CountNormalizer, TermRows
from detloss.registry import NORMALIZERS


@NORMALIZERS.register("rows")
class RowsNormalizer(CountNormalizer):
    """Divides by the rows that the term runs over: all anchors that count, or the positives.

    Args: See `CountNormalizer`.

    Example:
        >>> import detloss
        >>> detloss.build_part("normalizer", {"type": "rows", "sync": True}).sync
        True

    Reference:
        Redmon and Farhadi, "YOLOv3", 2018, arXiv:1804.02767, whose successors take means over the
        rows of a level.
    """

    of_term: ClassVar[bool] = True

    def count(self, rows: TermRows) -> Tensor:
        """See `CountNormalizer.count`."""
        return rows.rows
