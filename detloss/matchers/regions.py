"""What every matcher does with boxes that cannot be matched, and with ignore regions.

An ignore region never claims an anchor, and background anchors that lie in one are ignored. A box
that is not finite claims no anchor and is claimed by none.
"""

import torch
from torch import Tensor

from detloss.boxes.planes import area_of_planes, iof_of_planes
from detloss.matchers.tiles import largest_of_each_anchor
from detloss.tensors import sync_is_free

FAR = 1e15
"""Boxes within this distance have finite areas in every dtype that overlaps are computed in."""


def in_ignore_region(
    anchors: Tensor, boxes: Tensor, flags: Tensor, ignore_overlap: float
) -> Tensor:
    """(B, A) bool, the anchors of which that share of the area, above 0, lies in one ignore region.

    Args:
        anchors: (B, A, 4), finite; B is 1 on a CPU.
        boxes: (B, M, 4) in the dtype of the anchors, ignore regions among them.
        flags: (B, M) bool, which of them are.
        ignore_overlap: The share, in [0, 1].
    """
    regions = keep_boxes(boxes, flags & ~boxes.isnan().any(-1))
    share, _ = largest_of_each_anchor(
        anchors, regions, lambda regions, anchors: iof_of_planes(anchors, regions)
    )
    return (share >= ignore_overlap) & (share > 0)


def finite_only(boxes: Tensor) -> Tensor:
    """`boxes` (..., 4), those that are not finite, or whose area is not, shrunk to a point."""
    if sync_is_free(boxes) and boxes.norm().item() < FAR:
        return boxes
    area = area_of_planes(boxes.movedim(-1, 0))
    return keep_boxes(boxes, area.abs() < torch.inf)  # `isfinite` would be twice the launches


def keep_boxes(boxes: Tensor, kept: Tensor) -> Tensor:
    """`boxes` (..., 4), those where `kept` (...) is False shrunk to a point at 0."""
    return torch.where(kept[..., None], boxes, 0)
