"""Box coders: boxes <-> what a network regresses."""

from detloss.coders.base import Coder
from detloss.coders.delta import DeltaCoder

__all__ = ["Coder", "DeltaCoder"]
