"""A term over its positive anchors."""

from torch import Tensor

from detloss.normalizers.base import CountNormalizer, TermRows
from detloss.registry import NORMALIZERS


@NORMALIZERS.register("positives")
class PositivesNormalizer(CountNormalizer):
    """Divides by the positive anchors: those that are assigned to a ground truth.

    Args: See `CountNormalizer`.

    Example:
        >>> import detloss
        >>> detloss.build_part("normalizer", {"type": "positives", "sync": True}).sync
        True

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002,
        section 4.1: the sum over all anchors, divided by those assigned to a ground truth.
    """

    def count(self, rows: TermRows) -> Tensor:
        """See `CountNormalizer.count`."""
        return rows.positive
