"""Geometry only: formats, overlaps, checking, grids. Boxes are (x1, y1, x2, y2), continuous."""

from detloss.boxes.formats import FORMATS, convert_boxes
from detloss.boxes.grids import anchor_strides, grid_anchors, grid_points
from detloss.boxes.overlaps import OVERLAPS, OverlapKind, box_area, paired_overlap, pairwise_overlap
from detloss.boxes.padding import pad_targets
from detloss.boxes.sanitize import BoxChange, sanitize_targets

__all__ = [
    "FORMATS",
    "OVERLAPS",
    "BoxChange",
    "OverlapKind",
    "anchor_strides",
    "box_area",
    "convert_boxes",
    "grid_anchors",
    "grid_points",
    "pad_targets",
    "paired_overlap",
    "pairwise_overlap",
    "sanitize_targets",
]
