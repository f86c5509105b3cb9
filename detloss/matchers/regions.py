"""What every matcher does with boxes that cannot be matched, and with ignore regions.

An ignore region never claims an anchor, and background anchors that lie in one are ignored. A box
that is not finite claims no anchor and is claimed by none.
"""

import torch
from torch import Tensor

from detloss.boxes.overlaps import area_of_planes, iof_of_planes
from detloss.matchers.base import check_match_inputs
from detloss.matchers.tiles import Tiles
from detloss.tensors import sync_is_free, wide_type

FAR = 1e15
"""Boxes within this distance have finite areas in every dtype that overlaps are computed in."""


def matchable(anchors: Tensor, gt_boxes: Tensor, gt_ignore: Tensor | None) -> tuple[Tensor, Tensor]:
    """Checked anchors (A, 4) and ground truths (M, 4), in one dtype of at least float32.

    Boxes that are not finite and ignore regions are shrunk to a point: it overlaps nothing, and no
    other index changes.

    Raises:
        TypeError: If boxes are not floating point or the flags (M,) not boolean.
        ValueError: If a shape is wrong.
    """
    check_match_inputs(anchors, gt_boxes, gt_ignore)
    anchors, gt_boxes = in_one_dtype(anchors, gt_boxes)
    truths = gt_boxes if gt_ignore is None else keep_boxes(gt_boxes, ~gt_ignore)
    return finite_only(anchors), finite_only(truths)


def in_ignore_region(
    anchors: Tensor, gt_boxes: Tensor, gt_ignore: Tensor | None, ignore_overlap: float
) -> Tensor:
    """(A,) bool, the anchors of which that share of the area, above 0, lies in one ignore region.

    Args:
        anchors: (A, 4), finite.
        gt_boxes: (M, 4), ignore regions among them.
        gt_ignore: (M,) bool, which of them are; None for none.
        ignore_overlap: The share, in [0, 1].
    """
    if gt_ignore is None:
        return torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
    tiles = Tiles(*in_one_dtype(anchors, keep_boxes(gt_boxes, gt_ignore)))
    inside = tiles.new_zeros(dtype=torch.bool)
    for chosen, near in tiles.blocks():
        regions, anchors_of_tile = tiles.pairs(chosen, near)
        share = iof_of_planes(anchors_of_tile, regions)
        inside[chosen] = ((share >= ignore_overlap) & (share > 0)).any(1)
    return tiles.untiled(inside)


def in_one_dtype(anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the wider of their dtypes, float32 at least."""
    dtype = torch.promote_types(wide_type(anchors), wide_type(boxes))
    return anchors.to(dtype), boxes.to(dtype)


def finite_only(boxes: Tensor) -> Tensor:
    """`boxes` (N, 4), those that are not finite, or whose area is not, shrunk to a point."""
    if sync_is_free(boxes) and boxes.norm().item() < FAR:
        return boxes
    return keep_boxes(boxes, area_of_planes(boxes.t()).isfinite())


def keep_boxes(boxes: Tensor, kept: Tensor) -> Tensor:
    """`boxes` (N, 4), those where `kept` (N,) is False shrunk to a point that overlaps nothing."""
    return torch.where(kept[:, None], boxes, 0)
