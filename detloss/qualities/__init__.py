"""Qualities: how good a positive's answer is, in [0, 1]: a soft label, or the weight of a row."""

from detloss.qualities.base import Positives, Quality
from detloss.qualities.centerness import CenternessQuality
from detloss.qualities.confidence import ConfidenceQuality
from detloss.qualities.iou import IoUQuality
from detloss.qualities.score import ScoreQuality

__all__ = [
    "CenternessQuality",
    "ConfidenceQuality",
    "IoUQuality",
    "Positives",
    "Quality",
    "ScoreQuality",
]
