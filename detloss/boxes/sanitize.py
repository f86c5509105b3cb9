"""Cleaning ground truth before training: nothing is changed without being reported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from detloss.boxes.checking import check_boxes, check_image_size
from detloss.options import check_choice

Policy = Literal["drop", "clip", "error"]
PER_BOX_KEYS = ("boxes", "labels", "ignore", "weights", "area", "iscrowd", "masks", "keypoints")
"""The entries of a target with a row for each box. Where a box is dropped, so is its row."""


@dataclass(frozen=True)
class BoxChange:
    """One box that `sanitize_targets` dropped or clipped."""

    image: int
    index: int
    box: tuple[float, ...]
    reason: str
    action: Literal["dropped", "clipped"]

    def __str__(self) -> str:
        return (
            f"image {self.image}, box {self.index} {list(self.box)}: {self.reason}, {self.action}"
        )


def sanitize_targets(
    targets: Sequence[Mapping[str, Tensor]],
    image_size: Sequence[int] | Sequence[Sequence[int]],
    policy: Policy = "drop",
) -> tuple[list[dict[str, Tensor]], list[BoxChange]]:
    """Removes boxes that cannot be learned from targets, and reports every change.

    A box is unusable when a coordinate is not finite, a side is zero or negative, or it lies
    wholly outside the image. A box that reaches over the image's edge is usable.

    - "drop" removes unusable boxes and leaves the others as they are.
    - "clip" also cuts boxes at the image's edges; other entries, "area" too, stay as they are.
    - "error" raises at the first unusable box.

    Args:
        targets: Mappings with "boxes" (M, 4) as (x1, y1, x2, y2) in pixels, "labels" (M,) and
            whatever else. Where a box is dropped, so is its row in each entry of
            `PER_BOX_KEYS`. The mappings given are not changed.
        image_size: (height, width) of all images, or one such pair for each image.
        policy: "drop", "clip" or "error".

    Returns:
        The clean targets, and one `BoxChange` for each box changed, in order.

    Raises:
        TypeError: If boxes are not floating point.
        ValueError: If a shape or the policy is wrong, or with "error" at an unusable box.

    Example:
        >>> target = {"boxes": torch.tensor([[0.0, 0, 9, 9], [5, 5, 5, 9]]),
        ...           "labels": torch.tensor([1, 2])}
        >>> clean, changes = sanitize_targets([target], (10, 10))
        >>> clean[0]["labels"], str(changes[0])
        (tensor([1]), 'image 0, box 1 [5.0, 5.0, 5.0, 9.0]: no area, dropped')
    """
    check_choice("policy", policy, get_args(Policy))
    sizes = _sizes(image_size, len(targets))

    clean, changes = [], []
    for image, (target, (height, width)) in enumerate(zip(targets, sizes, strict=True)):
        boxes = target["boxes"]
        check_boxes(f"targets[{image}]['boxes']", boxes)
        for key in PER_BOX_KEYS:
            if boxes.ndim != 2 or len(target.get(key, boxes)) != len(boxes):
                raise ValueError(
                    f"targets[{image}] must have boxes (M, 4) and M rows of {key}, "
                    f"got {tuple(boxes.shape)} and {tuple(target.get(key, boxes).shape)}"
                )
        clipped = torch.stack(
            [boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)], dim=-1
        ).flatten(1)
        reasons = _reasons(boxes, clipped)
        reached_over = (clipped != boxes).any(dim=1).tolist()

        for index, reason in enumerate(reasons):
            if reason is None and not (policy == "clip" and reached_over[index]):
                continue
            box = tuple(boxes[index].tolist())
            if policy == "error":
                raise ValueError(f"targets[{image}]['boxes'][{index}] is {list(box)}: {reason}")
            action: Literal["dropped", "clipped"] = "dropped" if reason else "clipped"
            changes.append(BoxChange(image, index, box, reason or "over the edge", action))

        kept = torch.tensor([reason is None for reason in reasons], dtype=torch.bool)
        clean.append(_select(target, clipped if policy == "clip" else boxes, kept))
    return clean, changes


def _sizes(
    image_size: Sequence[int] | Sequence[Sequence[int]], count: int
) -> list[tuple[float, float]]:
    if len(image_size) == 2 and all(isinstance(side, (int, float)) for side in image_size):
        return [check_image_size(cast(Sequence[int], image_size))] * count
    if any(isinstance(size, (int, float)) for size in image_size):
        raise ValueError(f"image_size must be (height, width) or a list of such, got {image_size}")
    sizes = [check_image_size(size) for size in cast(Sequence[Sequence[int]], image_size)]
    if len(sizes) != count:
        raise ValueError(f"image_size must be one pair or {count}, one a target, got {len(sizes)}")
    return sizes


def _reasons(boxes: Tensor, clipped: Tensor) -> list[str | None]:
    """Why each box cannot be learned, or None."""
    finite = boxes.isfinite().all(dim=1).tolist()
    proper = (boxes[:, 2:] > boxes[:, :2]).all(dim=1).tolist()
    inside = (clipped[:, 2:] > clipped[:, :2]).all(dim=1).tolist()
    reasons: list[str | None] = []
    for is_finite, has_area, is_inside in zip(finite, proper, inside, strict=True):
        if not is_finite:
            reasons.append("not finite")
        elif not has_area:
            reasons.append("no area")
        else:
            reasons.append(None if is_inside else "outside the image")
    return reasons


def _select(target: Mapping[str, Tensor], boxes: Tensor, kept: Tensor) -> dict[str, Tensor]:
    """`target` with these boxes, and of every per-box entry the rows that are kept."""
    clean = dict(target)
    clean["boxes"] = boxes
    for key in PER_BOX_KEYS:
        if key in clean:
            clean[key] = clean[key][kept.to(clean[key].device)]
    return clean
