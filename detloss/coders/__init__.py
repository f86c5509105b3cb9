"""Box coders: boxes <-> what a network regresses."""

from detloss.coders.base import Coder
from detloss.coders.boxes import BoxesCoder
from detloss.coders.center import CenterCoder
from detloss.coders.delta import DeltaCoder
from detloss.coders.distribution import DistributionCoder
from detloss.coders.fovea import FoveaCoder
from detloss.coders.ltrb import LTRBCoder
from detloss.coders.tblr import TBLRCoder
from detloss.coders.yolo import YOLOCoder
from detloss.coders.yolox import YOLOXCoder

__all__ = [
    "BoxesCoder",
    "CenterCoder",
    "Coder",
    "DeltaCoder",
    "DistributionCoder",
    "FoveaCoder",
    "LTRBCoder",
    "TBLRCoder",
    "YOLOCoder",
    "YOLOXCoder",
]
