"""Normalizers: what the sum of a loss is divided by."""

from detloss.normalizers.anchors import AnchorsNormalizer
from detloss.normalizers.base import CountNormalizer, Normalizer, TermRows, divisors
from detloss.normalizers.constant import ConstantNormalizer
from detloss.normalizers.entries import EntriesNormalizer
from detloss.normalizers.ground_truths import GroundTruthsNormalizer
from detloss.normalizers.moving_average import MovingAverageNormalizer
from detloss.normalizers.pairs import PairsNormalizer
from detloss.normalizers.per_image import PerImageNormalizer
from detloss.normalizers.positives import PositivesNormalizer
from detloss.normalizers.row_weights import RowWeightsNormalizer
from detloss.normalizers.rows import RowsNormalizer
from detloss.normalizers.supplied import SuppliedNormalizer
from detloss.normalizers.target_scores import TargetScoresNormalizer

__all__ = [
    "AnchorsNormalizer",
    "ConstantNormalizer",
    "CountNormalizer",
    "EntriesNormalizer",
    "GroundTruthsNormalizer",
    "MovingAverageNormalizer",
    "Normalizer",
    "PairsNormalizer",
    "PerImageNormalizer",
    "PositivesNormalizer",
    "RowWeightsNormalizer",
    "RowsNormalizer",
    "SuppliedNormalizer",
    "TargetScoresNormalizer",
    "TermRows",
    "divisors",
]
