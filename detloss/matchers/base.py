"""What every matcher is, and what it returns: the ground truth that each anchor is assigned to."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from detloss.boxes.checking import check_boxes
from detloss.registry import Part
from detloss.tensors import check_floating


@dataclass(frozen=True)
class Matches:
    """The ground truth that each of the A anchors of an image is assigned to. No sentinels.

    Attributes:
        target_index: (A,) int64, the ground truth of each positive anchor; 0 elsewhere.
        positive: (A,) bool, the anchors that are assigned to a ground truth.
        ignored: (A,) bool, the anchors that do not count; the rest is background.
        score: (A,) in [0, 1], the matcher's own measure of each positive anchor, 0 elsewhere;
            None where the matcher has none.
        pairs: (P, 2) int64, anchor and ground truth, where an anchor may be assigned to several
            ground truths; `target_index` then names one of them. None where it names all.
        sampled: Whether a sampler has chosen the anchors that count.

    Raises:
        TypeError: If a value is not a tensor or has the wrong dtype.
        ValueError: If a shape is wrong.
    """

    target_index: Tensor
    positive: Tensor
    ignored: Tensor
    score: Tensor | None = None
    pairs: Tensor | None = None
    sampled: bool = False

    def __post_init__(self) -> None:
        _check_dtype("target_index", self.target_index, torch.int64)
        if self.target_index.ndim != 1:
            raise ValueError(
                f"target_index must have shape (A,), got {tuple(self.target_index.shape)}"
            )
        for name, flags in (("positive", self.positive), ("ignored", self.ignored)):
            _check_dtype(name, flags, torch.bool)
            self._check_one_an_anchor(name, flags)
        if self.score is not None:
            check_floating("score", self.score)
            self._check_one_an_anchor("score", self.score)
        if self.pairs is not None:
            _check_dtype("pairs", self.pairs, torch.int64)
            if self.pairs.ndim != 2 or self.pairs.shape[1] != 2:
                raise ValueError(f"pairs must have shape (P, 2), got {tuple(self.pairs.shape)}")

    @property
    def negative(self) -> Tensor:
        """(A,) bool, the background anchors."""
        return ~(self.positive | self.ignored)

    def _check_one_an_anchor(self, name: str, values: Tensor) -> None:
        if values.shape != self.target_index.shape:
            raise ValueError(
                f"{name} must have the shape of target_index, {tuple(self.target_index.shape)}, "
                f"got {tuple(values.shape)}"
            )


class Matcher(Part):
    """Assigns the anchors of an image to its ground truths.

    A subclass implements `forward`, which matches one image, and names the optional inputs that
    it cannot do without; a detector head checks when it is built that it can provide them.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    """Of "gt_labels", "level_sizes", "class_logits", "pred_boxes" and "objectness"."""
    scores: ClassVar[bool] = False
    """Whether its matches carry a score."""

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
        objectness: Tensor | None = None,
    ) -> Matches:
        """The matches of one image with A anchors and M ground truths.

        Args:
            anchors: (A, 4) as (x1, y1, x2, y2); a point is the square around it whose side is its
                stride.
            gt_boxes: (M, 4) in the same unit; M may be 0.
            gt_labels: (M,) class indices.
            gt_ignore: (M,) bool, regions in which objects are not labelled: they never claim an
                anchor, and background anchors in them are ignored.
            level_sizes: How many anchors each pyramid level has, in order.
            class_logits: (A, C) predicted scores of the classes.
            pred_boxes: (A, 4) predicted boxes.
            objectness: (A,) predicted logits of "there is an object".

        Raises:
            TypeError: If a tensor has the wrong dtype.
            ValueError: If a shape does not fit, or an input that the matcher needs is missing.
        """
        raise NotImplementedError

    def batch(
        self,
        anchors: Sequence[Tensor],
        gt_boxes: Sequence[Tensor],
        *,
        gt_labels: Sequence[Tensor] | None = None,
        gt_ignore: Sequence[Tensor | None] | None = None,
        level_sizes: Sequence[int] | None = None,
        class_logits: Tensor | None = None,
        pred_boxes: Tensor | None = None,
        objectness: Tensor | None = None,
    ) -> list[Matches]:
        """The matches of B images: those of `forward`, one image after the other.

        A subclass that can match all images at once overrides it.

        Args:
            anchors: B times (A, 4); one tensor may be given B times.
            gt_boxes: B times (M, 4); M may differ and be 0.
            gt_labels: B times (M,).
            gt_ignore: B times (M,) or None.
            level_sizes: See `forward`; the same for all images.
            class_logits: (B, A, C).
            pred_boxes: (B, A, 4).
            objectness: (B, A).

        Raises:
            TypeError: If a tensor has the wrong dtype.
            ValueError: If a shape or a length does not fit, or a needed input is missing.
        """
        count = len(gt_boxes)
        check_one_an_image(
            count,
            anchors=anchors,
            gt_labels=gt_labels,
            gt_ignore=gt_ignore,
            class_logits=class_logits,
            pred_boxes=pred_boxes,
            objectness=objectness,
        )
        return [
            self(
                anchors[image],
                gt_boxes[image],
                gt_labels=None if gt_labels is None else gt_labels[image],
                gt_ignore=None if gt_ignore is None else gt_ignore[image],
                level_sizes=level_sizes,
                class_logits=None if class_logits is None else class_logits[image],
                pred_boxes=None if pred_boxes is None else pred_boxes[image],
                objectness=None if objectness is None else objectness[image],
            )
            for image in range(count)
        ]


def check_one_an_image(count: int, **values: Sequence[Any] | Tensor | None) -> None:
    """Raises ValueError unless each of the values that are given has that length."""
    for name, value in values.items():
        if value is not None and len(value) != count:
            raise ValueError(f"{name} must be {count}, one an image, got {len(value)}")


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


def check_level_sizes(level_sizes: Sequence[int] | None, count: int) -> Sequence[int]:
    """`level_sizes`; raises ValueError where they are missing or do not add up to the anchors."""
    if level_sizes is None or sum(level_sizes) != count:
        got = None if level_sizes is None else list(level_sizes)
        raise ValueError(f"level_sizes must add up to the {count} anchors, got {got}")
    return level_sizes


def _check_dtype(name: str, values: Tensor, dtype: torch.dtype) -> None:
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(values).__name__}")
    if values.dtype != dtype:
        raise TypeError(f"{name} must be {dtype}, got {values.dtype}")
