"""Normalizers: what the sum of a loss is divided by."""

from detloss.normalizers.base import Counts, Normalizer
from detloss.normalizers.constant import ConstantNormalizer
from detloss.normalizers.per_image import PerImageNormalizer
from detloss.normalizers.positives import PositivesNormalizer
from detloss.normalizers.supplied import SuppliedNormalizer

__all__ = [
    "ConstantNormalizer",
    "Counts",
    "Normalizer",
    "PerImageNormalizer",
    "PositivesNormalizer",
    "SuppliedNormalizer",
]
