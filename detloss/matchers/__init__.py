"""Matchers: which anchors are assigned to which ground truth."""

from detloss.matchers.base import Matcher, Matches
from detloss.matchers.max_iou import MaxIoUMatcher

__all__ = ["Matcher", "Matches", "MaxIoUMatcher"]
