"""Matchers: which anchors are assigned to which ground truth."""

from detloss.matchers.atss import ATSSMatcher
from detloss.matchers.base import Matcher, Matches
from detloss.matchers.center_point import CenterPointMatcher
from detloss.matchers.center_region import CenterRegionMatcher
from detloss.matchers.dynamic_soft_label import DynamicSoftLabelMatcher
from detloss.matchers.fcos import FCOSMatcher
from detloss.matchers.fsaf import FSAFMatcher
from detloss.matchers.grid import GridMatcher
from detloss.matchers.images import Losses
from detloss.matchers.max_iou import MaxIoUMatcher, match_matrix
from detloss.matchers.paa import PAAMatcher
from detloss.matchers.sim_ota import SimOTAMatcher
from detloss.matchers.ssd import SSDMatcher
from detloss.matchers.task_aligned import TaskAlignedMatcher
from detloss.matchers.uniform import UniformMatcher
from detloss.matchers.yolo_ratio import YOLORatioMatcher

__all__ = [
    "ATSSMatcher",
    "CenterPointMatcher",
    "CenterRegionMatcher",
    "DynamicSoftLabelMatcher",
    "FCOSMatcher",
    "FSAFMatcher",
    "GridMatcher",
    "Losses",
    "Matcher",
    "Matches",
    "MaxIoUMatcher",
    "PAAMatcher",
    "SSDMatcher",
    "SimOTAMatcher",
    "TaskAlignedMatcher",
    "UniformMatcher",
    "YOLORatioMatcher",
    "match_matrix",
]
