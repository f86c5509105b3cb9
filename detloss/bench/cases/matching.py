"""Cases of matching: the anchors of a batch of images to their ground truths."""

import importlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import detloss
from detloss.bench.cases.runners import optional
from detloss.bench.measure import Case, Run
from detloss.boxes import grid_anchors
from detloss.matchers import Matches

STRIDES = (8, 16, 32, 64, 128)
OCTAVES = tuple(4 * 2 ** (third / 3) for third in range(3))
MATCHERS: dict[str, dict[str, Any]] = {
    "max_iou": {"type": "max_iou"},
    "fcos": {"type": "fcos", "radius": 1.5},
    "atss": {"type": "atss", "scale": 8, "convention": "mmdet"},
}


def anchors_of(
    side: int, device: torch.device, *, nine: bool, levels: int = len(STRIDES)
) -> tuple[Tensor, list[int]]:
    """Anchors over the levels of a square image, and how many each level has.

    Nine a cell as in RetinaNet, or one, the square of the cell.
    """
    strides = STRIDES[:levels]
    cells = [(count, count) for count in cells_along(side, strides)]
    shape = {"scales": OCTAVES, "ratios": (0.5, 1.0, 2.0)} if nine else {"scales": (1.0,)}
    anchors, level_sizes = grid_anchors(cells, strides, offset=0.5, **shape)
    return anchors.to(device), level_sizes


def cells_along(side: int, strides: Sequence[int]) -> list[int]:
    """The cells along a side of an image on each level: a convolution pads what is left."""
    return [math.ceil(side / stride) for stride in strides]


def objects(count: int, side: int, device: torch.device, seed: int = 0) -> Tensor:
    """Ground-truth boxes of 12 to 240 pixels a side."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * (side - 100)
    size = torch.exp(torch.rand(count, 2, generator=generator) * 3 + 2.5)
    return torch.cat([corner, (corner + size).clamp(max=side)], dim=-1).to(device)


def matching(
    device: torch.device,
    scale: float,
    *,
    counts: Sequence[int],
    side: int = 800,
    name: str = "max_iou",
) -> Case:
    """Matching of a batch whose images have that many objects."""
    side = side if scale == 1 else 128
    anchors, level_sizes = anchors_of(side, device, nine=name == "max_iou")
    images = [objects(count, side, device, seed) for seed, count in enumerate(counts)]
    matcher: Any = detloss.build_part("matcher", MATCHERS[name])

    def ours() -> list[Matches]:
        found: list[Matches] = matcher.batch(
            [anchors] * len(images), images, level_sizes=level_sizes
        )
        return found

    runners: dict[str, Run] = {"detloss": ours}
    utils = optional("torchvision.models.detection._utils")
    if name == "max_iou" and utils:
        box_iou = importlib.import_module("torchvision.ops").box_iou
        theirs = utils.Matcher(0.5, 0.4, allow_low_quality_matches=True)
        runners["torchvision"] = lambda: [theirs(box_iou(boxes, anchors)) for boxes in images]
    if name == "atss" and (mmdet := _mmdet_atss(anchors, level_sizes, images)):
        runners["mmdet"] = mmdet
    few = " + ".join(map(str, counts)) if len(counts) <= 4 else f"{len(counts)} images, {counts[0]}"
    title = f"{name} matching, {len(anchors):,} anchors, {few} boxes"
    return Case(title, runners, anchors.nbytes, tensors=as_indices)


def _mmdet_atss(anchors: Tensor, level_sizes: list[int], images: Sequence[Tensor]) -> Run | None:
    """Mmdetection's assigner on the same squares, or None where it is not installed."""
    assigners = optional("mmdet.models.task_modules.assigners")
    structures = optional("mmengine.structures")
    if not (assigners and structures):
        return None
    assigner = assigners.ATSSAssigner(topk=9)
    centre, side = (anchors[:, :2] + anchors[:, 2:]) / 2, 8 * (anchors[:, 2:] - anchors[:, :2])
    priors = structures.InstanceData(priors=torch.cat([centre - side / 2, centre + side / 2], 1))
    truths = [
        structures.InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long))
        for boxes in images
    ]
    return lambda: [assigner.assign(priors, level_sizes, truth).gt_inds - 1 for truth in truths]


def as_indices(images: Sequence[Matches | Tensor]) -> Sequence[Tensor]:
    """The ground truth of each anchor; -1 where it is background, -2 where it is ignored."""
    return [
        found
        if isinstance(found, Tensor)
        else torch.where(found.positive, found.target_index, torch.where(found.ignored, -2, -1))
        for found in images
    ]
