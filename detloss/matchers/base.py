"""What every matcher is, and what it returns: the ground truth that each anchor is assigned to."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from detloss.matchers.images import Images, Losses, images_of
from detloss.registry import Part
from detloss.tensors import check_floating, sync_is_free


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
        is_pair: (P,) bool, which of the `pairs` are pairs, where to list only those would be a
            host sync; the others name any anchor and any ground truth. None for all.

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
    is_pair: Tensor | None = None

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
        if self.is_pair is not None:
            _check_dtype("is_pair", self.is_pair, torch.bool)
            if self.pairs is None or self.is_pair.shape != self.pairs.shape[:1]:
                raise ValueError(
                    f"is_pair must have shape (P,), one for each of pairs, "
                    f"got {tuple(self.is_pair.shape)}"
                )

    @property
    def negative(self) -> Tensor:
        """(A,) bool, the background anchors."""
        return ~(self.positive | self.ignored)

    @property
    def listed_pairs(self) -> Tensor | None:
        """(P, 2) the pairs alone; a host sync where there is `is_pair`."""
        return (
            self.pairs if self.pairs is None or self.is_pair is None else self.pairs[self.is_pair]
        )

    def _check_one_an_anchor(self, name: str, values: Tensor) -> None:
        if values.shape != self.target_index.shape:
            raise ValueError(
                f"{name} must have the shape of target_index, {tuple(self.target_index.shape)}, "
                f"got {tuple(values.shape)}"
            )


class Assigned(NamedTuple):
    """What a matcher says of the A anchors of B images.

    Attributes:
        target_index: (B, A) int64, the ground truth of each positive anchor; elsewhere any number.
        positive: (B, A) bool, the anchors that are assigned to a ground truth.
        ignored: (B, A) bool, of the others those that do not count; of positives it says nothing.
        score: (B, A), as in `Matches`; elsewhere any number. None where the matcher has none.
        pairs: Of each image (P, 2), as in `Matches`, or None.
        is_pair: Of each image (P,), as in `Matches`, or None.
    """

    target_index: Tensor
    positive: Tensor
    ignored: Tensor
    score: Tensor | None = None
    pairs: Sequence[Tensor] | None = None
    is_pair: Sequence[Tensor] | None = None

    def matches(self) -> list[Matches]:
        """Of each image."""
        rows = zip(
            torch.where(self.positive, self.target_index, 0),
            self.positive,
            self.ignored & ~self.positive,
            strict=True,
        )
        score = None if self.score is None else torch.where(self.positive, self.score, 0)
        return [
            Matches(
                *of_image,
                score=None if score is None else score[image],
                pairs=None if self.pairs is None else self.pairs[image],
                is_pair=None if self.is_pair is None else self.is_pair[image],
            )
            for image, of_image in enumerate(rows)
        ]


class Matcher(Part):
    """Assigns the anchors of an image to its ground truths.

    A subclass implements `match`, and names the optional inputs that it cannot do without; a
    detector head checks when it is built that it can provide them. One that cannot match several
    images at once overrides `forward` instead.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    """Of "gt_labels", "level_sizes", "class_logits", "pred_boxes", "objectness" and "losses"."""
    scores: ClassVar[bool] = False
    """Whether its matches carry a score."""
    needs_sizes: bool = False
    """Whether it compares the boxes of anchors with ground truths, so that anchors must have the
    sizes of objects. Without, points will do, the squares of their strides.
    """

    def match(self, images: Images) -> Assigned:
        """The ground truths of the anchors of B images, each with anchors and ground truths.

        It is one function for one image and for a batch, without a loop over the images. On a CPU
        it may read values where that saves time, see `detloss.tensors.sync_is_free`.
        """
        raise NotImplementedError(f"{type(self).__name__} must have match or forward")

    @torch.no_grad()
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
        losses: Losses | None = None,
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
            losses: Tells the losses that anchors would have; see `detloss.matchers.images.Losses`.

        Raises:
            TypeError: If a tensor has the wrong dtype.
            ValueError: If a shape does not fit, or an input that the matcher needs is missing.
        """
        images = images_of(
            [anchors],
            [gt_boxes],
            gt_labels=None if gt_labels is None else [gt_labels],
            gt_ignore=[gt_ignore],
            level_sizes=level_sizes,
            class_logits=None if class_logits is None else class_logits[None],
            pred_boxes=None if pred_boxes is None else pred_boxes[None],
            objectness=None if objectness is None else objectness[None],
            losses=losses,
        )
        return self._matches(images)[0]

    @torch.no_grad()
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
        losses: Losses | None = None,
    ) -> list[Matches]:
        """The matches of B images, those of `forward`.

        On a CPU, and under a compiler, one image after the other, for less memory. On an
        accelerator all at once, in the launches of one image.

        Args:
            anchors: B times (A, 4); one tensor may be given B times.
            gt_boxes: B times (M, 4); M may differ and be 0.
            gt_labels: B times (M,).
            gt_ignore: B times (M,) or None.
            level_sizes: See `forward`; the same for all images.
            class_logits: (B, A, C).
            pred_boxes: (B, A, 4).
            objectness: (B, A).
            losses: See `forward`.

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
        if count and self._takes_batch(anchors, gt_boxes):
            images = images_of(
                anchors,
                gt_boxes,
                gt_labels=gt_labels,
                gt_ignore=gt_ignore,
                level_sizes=level_sizes,
                class_logits=class_logits,
                pred_boxes=pred_boxes,
                objectness=objectness,
                losses=losses,
            )
            return self._matches(images)
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
                **({} if losses is None else {"losses": partial(losses, first=image)}),
            )
            for image in range(count)
        ]

    def _takes_batch(self, anchors: Sequence[Tensor], gt_boxes: Sequence[Tensor]) -> bool:
        """Whether to match all images at once: on an accelerator, where they are of one kind."""
        if torch.compiler.is_compiling() or sync_is_free(gt_boxes[0]):
            return False
        return of_one_kind(anchors, gt_boxes) and type(self).forward is Matcher.forward

    def _matches(self, images: Images) -> list[Matches]:
        """The matches of each image."""
        shape = images.anchors.shape[:2]
        if "level_sizes" in self.needs:
            check_level_sizes(images.level_sizes, shape[1])
        if shape[1]:
            self._check_needs(images)
            return self.match(images).matches()
        no = torch.zeros(shape, dtype=torch.bool, device=images.anchors.device)
        score = images.anchors.new_zeros(shape) if self.scores else None
        return Assigned(no.long(), no, no, score).matches()

    def _check_needs(self, images: Images) -> None:
        """Raises ValueError unless everything is there that it `needs`."""
        for name in sorted(self.needs):
            given = images.labels if name == "gt_labels" else getattr(images, name)
            if given is None:
                raise ValueError(f"matcher {self.type_name} needs {name}, got None")


def of_one_kind(anchors: Sequence[Tensor], gt_boxes: Sequence[Tensor]) -> bool:
    """Whether all images have the same number of anchors, and the same dtypes."""
    kinds = {
        (of_image.shape, of_image.dtype, boxes.dtype)
        for of_image, boxes in zip(anchors, gt_boxes, strict=True)
    }
    return len(kinds) == 1


def check_one_an_image(count: int, **values: Sequence[Any] | Tensor | None) -> None:
    """Raises ValueError unless each of the values that are given has that length."""
    for name, value in values.items():
        if value is not None and len(value) != count:
            raise ValueError(f"{name} must be {count}, one an image, got {len(value)}")


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
