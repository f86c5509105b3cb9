"""Samplers: which of the matched anchors count."""

from detloss.samplers.all import AllSampler
from detloss.samplers.base import Sampler, leave_out
from detloss.samplers.hard_negative import HardNegativeSampler
from detloss.samplers.ohem import OHEMSampler
from detloss.samplers.random_balanced import RandomBalancedSampler
from detloss.samplers.score import ScoreSampler

__all__ = [
    "AllSampler",
    "HardNegativeSampler",
    "OHEMSampler",
    "RandomBalancedSampler",
    "Sampler",
    "ScoreSampler",
    "leave_out",
]
