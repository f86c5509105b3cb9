"""Images as a matcher gets them: checked, in one tensor each, without what cannot be matched."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from detloss.boxes.checking import check_boxes
from detloss.boxes.padding import padded
from detloss.matchers.regions import finite_only, in_ignore_region, keep_boxes
from detloss.tensors import sync_is_free, wide_type


class Losses(Protocol):
    """What a criterion tells a matcher that assigns anchors by their losses."""

    def __call__(self, target_index: Tensor, positive: Tensor, first: int = 0) -> Tensor:
        """(B, A) the loss of each positive anchor, 0 elsewhere; not divided, without a gradient.

        Args:
            target_index: (B, A) int64, the ground truth of each positive; elsewhere any number.
            positive: (B, A) bool.
            first: Which image of the batch the first row is of.
        """


@dataclass(frozen=True)
class Images:
    """B images with A anchors and M ground truths each; M is at least 1, A in `Matcher.match`.

    All boxes are in one dtype, of at least float32. What can neither claim an anchor nor be claimed
    is a point at 0, which overlaps nothing: in `anchors` and `truths` a box that is not finite, in
    `truths` also an ignore region and what fills up an image with fewer of them than another, or
    without any.

    Under a compiler B is 1, and on a CPU too but for a `ClaimMatcher`. On an accelerator it is the
    whole batch, so that a matcher that has no loop over images needs as many launches for 16 as for
    one.

    Attributes:
        anchors: (B, A, 4).
        truths: (B, M, 4).
        boxes: (B, M, 4) as they were given, ignore regions among them.
        is_region: (B, M) bool, which of them are ignore regions; None where no image has flags.
        labels: (B, M) class of each ground truth, or None.
        level_sizes: Anchors of each pyramid level, or None.
        class_logits: (B, A, C), or None.
        pred_boxes: (B, A, 4), or None.
        objectness: (B, A), or None.
        losses: What tells the losses of anchors, or None.
    """

    anchors: Tensor
    truths: Tensor
    boxes: Tensor
    is_region: Tensor | None = None
    labels: Tensor | None = None
    level_sizes: Sequence[int] | None = None
    class_logits: Tensor | None = None
    pred_boxes: Tensor | None = None
    objectness: Tensor | None = None
    losses: Losses | None = None

    def in_ignore_region(self, ignore_overlap: float) -> Tensor:
        """(B, A) the anchors of which that share, above 0, lies in one ignore region."""
        if self.is_region is None:
            return self.anchors.new_zeros(self.anchors.shape[:2], dtype=torch.bool)
        of_images = self.anchors, self.boxes, self.is_region
        if len(self.boxes) == 1 or not sync_is_free(self.boxes):
            return in_ignore_region(*of_images, ignore_overlap)
        found = [
            in_ignore_region(anchors[None], boxes[None], flags[None], ignore_overlap)
            for anchors, boxes, flags in zip(*of_images, strict=True)
        ]
        return torch.cat(found)


def images_of(
    anchors: Sequence[Tensor],
    gt_boxes: Sequence[Tensor],
    *,
    gt_labels: Sequence[Tensor] | None = None,
    gt_ignore: Sequence[Tensor | None] | None = None,
    level_sizes: Sequence[int] | None = None,
    class_logits: Tensor | None = None,
    pred_boxes: Tensor | None = None,
    objectness: Tensor | None = None,
    losses: Losses | None = None,
) -> Images:
    """The images of a batch; see `Matcher.batch`. All have the same number of anchors.

    Raises:
        TypeError: If boxes are not floating point or the flags not boolean.
        ValueError: If a shape is wrong.
    """
    flags = [None] * len(gt_boxes) if gt_ignore is None else gt_ignore
    for one in zip(anchors, gt_boxes, flags, strict=True):
        check_match_inputs(*one)
    if all(len(boxes) == 0 for boxes in gt_boxes):
        gt_boxes, flags = [gt_boxes[0].new_zeros(1, 4)] * len(gt_boxes), [None] * len(gt_boxes)
        gt_labels = gt_labels and [gt_labels[0].new_zeros(1)] * len(gt_labels)
    dtype = torch.promote_types(wide_type(anchors[0]), wide_type(gt_boxes[0]))
    truths = boxes = padded(gt_boxes, 0).to(dtype)
    is_region = None
    if any(flag is not None for flag in flags):
        is_region = _all_flags(gt_boxes, flags)
        truths = keep_boxes(boxes, ~is_region)
    if all(one is anchors[0] for one in anchors):
        every = finite_only(anchors[0].to(dtype)).expand(len(anchors), -1, -1)
    else:
        every = finite_only(torch.stack(list(anchors)).to(dtype))
    return Images(
        anchors=every,
        truths=finite_only(truths),
        boxes=boxes,
        is_region=is_region,
        labels=None if gt_labels is None else padded(gt_labels, 0),
        level_sizes=level_sizes,
        class_logits=class_logits,
        pred_boxes=pred_boxes,
        objectness=objectness,
        losses=losses,
    )


def _all_flags(gt_boxes: Sequence[Tensor], flags: Sequence[Tensor | None]) -> Tensor:
    """(B, M) bool, which boxes are ignore regions; none of an image without flags."""
    never = gt_boxes[0].new_zeros(sum(map(len, gt_boxes)), dtype=torch.bool)
    given = [
        never[: len(boxes)] if flag is None else flag
        for boxes, flag in zip(gt_boxes, flags, strict=True)
    ]
    return padded(given, False)


def check_match_inputs(anchors: Tensor, gt_boxes: Tensor, gt_ignore: Tensor | None) -> None:
    """Raises unless the boxes are (A, 4) and (M, 4) and the flags (M,) bool."""
    for name, boxes in (("anchors", anchors), ("gt_boxes", gt_boxes)):
        check_boxes(name, boxes)
        if boxes.ndim != 2:
            raise ValueError(f"{name} must have shape (N, 4), got {tuple(boxes.shape)}")
    if gt_ignore is None:
        return
    if gt_ignore.dtype != torch.bool:
        raise TypeError(f"gt_ignore must be boolean, got {gt_ignore.dtype}")
    if gt_ignore.shape != gt_boxes.shape[:1]:
        raise ValueError(
            f"gt_ignore must have shape ({len(gt_boxes)},), got {tuple(gt_ignore.shape)}"
        )
