"""A term over the sum of the target scores."""

from torch import Tensor

from detloss.normalizers.base import CountNormalizer, TermRows
from detloss.registry import NORMALIZERS


@NORMALIZERS.register("target_scores")
class TargetScoresNormalizer(CountNormalizer):
    """Divides by the sum of the labels of the positives in the classification term.

    A label of one counts 1, the `label` of a term its quality; each times the weight of the ground
    truth.

    Args: See `CountNormalizer`.

    Example:
        >>> import detloss
        >>> detloss.build_part("normalizer", {"type": "target_scores", "sync": True}).sync
        True

    Reference:
        Feng et al., "TOOD: Task-aligned One-stage Object Detection", ICCV 2021,
        arXiv:2108.07755, whose labels are the alignment of a positive.
    """

    def count(self, rows: TermRows) -> Tensor:
        """See `CountNormalizer.count`."""
        return rows.target_scores
