"""Box coders: boxes <-> what a network regresses."""

from detloss.coders.base import Coder
from detloss.coders.delta import DeltaCoder
from detloss.coders.distribution import DistributionCoder
from detloss.coders.ltrb import LTRBCoder

__all__ = ["Coder", "DeltaCoder", "DistributionCoder", "LTRBCoder"]
