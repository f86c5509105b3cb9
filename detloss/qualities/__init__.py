"""Qualities: how good a positive is, in [0, 1]: its soft label, or the weight of its row."""

from detloss.qualities.base import HeatQuality, Positives, Quality
from detloss.qualities.centerness import CenternessQuality
from detloss.qualities.confidence import ConfidenceQuality
from detloss.qualities.gaussian import GaussianQuality
from detloss.qualities.iou import IoUQuality
from detloss.qualities.middle import MiddleQuality
from detloss.qualities.score import ScoreQuality

__all__ = [
    "CenternessQuality",
    "ConfidenceQuality",
    "GaussianQuality",
    "HeatQuality",
    "IoUQuality",
    "MiddleQuality",
    "Positives",
    "Quality",
    "ScoreQuality",
]
