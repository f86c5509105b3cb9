"""A term over the ground truths."""

from typing import ClassVar

from torch import Tensor

from detloss.normalizers.base import CountNormalizer, TermRows
from detloss.registry import NORMALIZERS


@NORMALIZERS.register("ground_truths")
class GroundTruthsNormalizer(CountNormalizer):
    """Divides by the boxes to learn; ignore regions do not count.

    Args: See `CountNormalizer`.

    Example:
        >>> import detloss
        >>> detloss.build_part("normalizer", {"type": "ground_truths", "sync": True}).sync
        True

    Reference:
        Carion et al., "End-to-End Object Detection with Transformers" (DETR), ECCV 2020,
        arXiv:2005.12872: box losses are normalised by the number of objects in the batch.
    """

    has_levels: ClassVar[bool] = False

    def count(self, rows: TermRows) -> Tensor:
        """See `CountNormalizer.count`."""
        return rows.ground_truths
