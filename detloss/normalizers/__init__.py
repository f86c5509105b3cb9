"""Normalizers: what the sum of a loss is divided by."""

from detloss.normalizers.base import Counts, Normalizer
from detloss.normalizers.constant import ConstantNormalizer
from detloss.normalizers.ground_truths import GroundTruthsNormalizer
from detloss.normalizers.moving_average import MovingAverageNormalizer
from detloss.normalizers.per_image import PerImageNormalizer
from detloss.normalizers.positives import PositivesNormalizer
from detloss.normalizers.supplied import SuppliedNormalizer
from detloss.normalizers.target_scores import TargetScoresNormalizer

__all__ = [
    "ConstantNormalizer",
    "Counts",
    "GroundTruthsNormalizer",
    "MovingAverageNormalizer",
    "Normalizer",
    "PerImageNormalizer",
    "PositivesNormalizer",
    "SuppliedNormalizer",
    "TargetScoresNormalizer",
]
