"""A term over its pairs of anchor and ground truth."""

from torch import Tensor

from detloss.normalizers.base import CountNormalizer, TermRows
from detloss.registry import NORMALIZERS


@NORMALIZERS.register("pairs")
class PairsNormalizer(CountNormalizer):
    """Divides by the pairs of an anchor and a ground truth that it is assigned to.

    Args: See `CountNormalizer`.

    Example:
        >>> import detloss
        >>> detloss.build_part("normalizer", {"type": "pairs", "sync": True}).sync
        True

    Reference:
        Chen et al., "You Only Look One-level Feature" (YOLOF), CVPR 2021, arXiv:2103.09460, in
        which an anchor may be assigned to several ground truths.
    """

    def count(self, rows: TermRows) -> Tensor:
        """See `CountNormalizer.count`."""
        return rows.pairs
