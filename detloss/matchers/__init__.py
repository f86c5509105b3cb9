"""Matchers: which anchors are assigned to which ground truth."""

from detloss.matchers.atss import ATSSMatcher
from detloss.matchers.base import Matcher, Matches
from detloss.matchers.fcos import FCOSMatcher
from detloss.matchers.max_iou import MaxIoUMatcher
from detloss.matchers.task_aligned import TaskAlignedMatcher

__all__ = [
    "ATSSMatcher",
    "FCOSMatcher",
    "Matcher",
    "Matches",
    "MaxIoUMatcher",
    "TaskAlignedMatcher",
]
