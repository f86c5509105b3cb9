"""A term over the anchors that count."""

from torch import Tensor

from detloss.normalizers.base import CountNormalizer, TermRows
from detloss.registry import NORMALIZERS


@NORMALIZERS.register("anchors")
class AnchorsNormalizer(CountNormalizer):
    """Divides by the anchors that count: positive or background, after the sampler.

    Args: See `CountNormalizer`.

    Example:
        >>> import detloss
        >>> detloss.build_part("normalizer", {"type": "anchors", "sync": True}).sync
        True

    Reference:
        Ren et al., "Faster R-CNN", NeurIPS 2015, arXiv:1506.01497, section 3.1.2: the size of the
        sampled mini-batch.
    """

    def count(self, rows: TermRows) -> Tensor:
        """See `CountNormalizer.count`."""
        return rows.counted
