"""What every matcher is, and what it says: which anchor answers for which ground truth."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from detloss.boxes.checking import check_boxes
from detloss.registry import Part


@dataclass(frozen=True)
class Matches:
    """What each of A anchors of an image answers for. There are no sentinels.

    Attributes:
        target_index: (A,) int64, the ground truth of each positive anchor; 0 elsewhere.
        positive: (A,) bool, the anchors that answer for a ground truth.
        ignored: (A,) bool, the anchors that answer for nothing; the rest is background.
    """

    target_index: Tensor
    positive: Tensor
    ignored: Tensor

    @property
    def negative(self) -> Tensor:
        """(A,) bool, the anchors that answer "background"."""
        return ~(self.positive | self.ignored)


class Matcher(Part):
    """Matches the anchors of one image to its ground truth.

    `needs` names the optional inputs without which it cannot match: a detector head provides
    them, and checks when it is built that it can.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def forward(
        self,
        anchors: Tensor,
        gt_boxes: Tensor,
        *,
        gt_labels: Tensor | None = None,
        gt_ignore: Tensor | None = None,
        level_sizes: Sequence[int] | None = None,
        class_logits: Tensor | None = None,
        pred_boxes: Tensor | None = None,
    ) -> Matches:
        """The matches of one image.

        Args:
            anchors: (A, 4) as (x1, y1, x2, y2).
            gt_boxes: (M, 4) in the same unit; M may be 0.
            gt_labels: (M,) class indices.
            gt_ignore: (M,) bool, regions whose objects nobody labelled: they never claim an
                anchor, and background anchors in them are ignored.
            level_sizes: How many anchors each pyramid level has, in order.
            class_logits: (A, C) predicted scores.
            pred_boxes: (A, 4) predicted boxes.
        """
        raise NotImplementedError


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
