"""A batch for matchers whose ground truths choose anchors by what is predicted there.

Its ground truths are rows of one table, its anchors have numbers, and a `Measure` takes both. So
the number of PyTorch's calls does not grow with the number of images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from detloss.boxes import paired_overlap
from detloss.boxes.planes import as_points, iou_of_planes
from detloss.matchers.images import Images, Losses
from detloss.matchers.regions import finite_only
from detloss.tensors import sync_is_free, widen

Measure = Callable[[Tensor, Tensor], Tensor]
"""A value of each pair, from the row of its ground truth and the number of its anchor."""


class Truths(NamedTuple):
    """The ground truths of all images, M each, a row each: R = B M.

    Attributes:
        boxes: (R, 4).
        image: (R,) image of each row.
        claims: (R,) bool, whether it may claim anchors: it is no ignore region and has an area.
        labels: (R,) class of each row; None where the matcher does not look at them.
    """

    boxes: Tensor
    image: Tensor
    claims: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class Scene:
    """B images with A anchors each; anchor a of image i is number ``i A + a``.

    Attributes:
        images: B.
        anchors: (G, A, 4), G = 1 where the images share them, else B.
        truths: The ground truths.
        class_logits: (B A, C), or None where the matcher does not look at them.
        pred_boxes: (B A, 4), those that are not finite shrunk to a point, or None.
        objectness: (B A,), or None.
        level_sizes: Anchors of each pyramid level, or None.
        losses: What tells the losses of anchors, or None.
    """

    images: int
    anchors: Tensor
    truths: Truths
    class_logits: Tensor | None = None
    pred_boxes: Tensor | None = None
    objectness: Tensor | None = None
    level_sizes: Sequence[int] | None = None
    losses: Losses | None = None

    @classmethod
    def of(cls, images: Images) -> "Scene":
        """The same images, flat."""
        count, most = images.truths.shape[:2]
        boxes = images.truths.flatten(0, 1)
        image = torch.arange(count, device=boxes.device)[:, None].expand(-1, most).flatten()
        claims = (boxes[:, 2:] > boxes[:, :2]).all(1)
        labels = None if images.labels is None else images.labels.long().flatten()
        shared = images.anchors.stride(0) == 0
        predicted, logits, objectness = images.pred_boxes, images.class_logits, images.objectness
        return cls(
            images=count,
            anchors=images.anchors[:1] if shared else images.anchors,
            truths=Truths(boxes, image, claims, labels),
            class_logits=None if logits is None else logits.flatten(0, 1),
            pred_boxes=None if predicted is None else finite_only(widen(predicted)).flatten(0, 1),
            objectness=None if objectness is None else objectness.flatten(),
            level_sizes=images.level_sizes,
            losses=images.losses,
        )

    def having(self, truths: Truths) -> "Scene":
        """The same images with other ground truths."""
        return Scene(
            images=self.images,
            anchors=self.anchors,
            truths=truths,
            class_logits=self.class_logits,
            pred_boxes=self.pred_boxes,
            objectness=self.objectness,
            level_sizes=self.level_sizes,
            losses=self.losses,
        )

    @property
    def size(self) -> int:
        """A."""
        return self.anchors.shape[1]

    @property
    def rows(self) -> int:
        """R."""
        return len(self.truths.boxes)

    @property
    def most(self) -> int:
        """M."""
        return self.rows // self.images

    def boxes_at(self, anchor: Tensor) -> Tensor:
        """The anchors of those numbers as boxes (..., 4)."""
        if len(self.anchors) == 1:
            anchor = anchor % self.size
        return take(self.anchors.flatten(0, 1), anchor)

    def nothing_chosen(self, count: int) -> tuple[Tensor, Tensor]:
        """(R, count) numbers of anchors, to be filled, and their costs, inf.

        Written in place: small results kept between large temporaries would fragment the heap.
        """
        costs = self.anchors.new_full((self.rows, count), torch.inf)
        return torch.zeros_like(costs, dtype=torch.long), costs

    @property
    def row_of_images(self) -> Tensor:
        """(B, M, 1) the rows of the ground truths."""
        return self.every_row.view(self.images, -1, 1)

    @property
    def anchor_of_images(self) -> Tensor:
        """(B, 1, A) the numbers of the anchors."""
        count = self.images * self.size
        return torch.arange(count, device=self.anchors.device).view(self.images, 1, -1)

    @property
    def every_row(self) -> Tensor:
        """(R, 1) the rows of the ground truths."""
        return torch.arange(self.rows, device=self.anchors.device)[:, None]

    @property
    def centres(self) -> Tensor:
        """(G, A, 4) centres of the anchors, as boxes without a side."""
        return as_points(self.anchors)

    def owned(self, owner: Tensor) -> Tensor:
        """(P,) numbers of the anchors with an owner below R; all where it would be a host sync."""
        if sync_is_free(owner):
            return (owner < self.rows).nonzero().view(-1)
        return torch.arange(len(owner), device=owner.device)

    @property
    def level(self) -> Tensor:
        """(B A,) pyramid level of each anchor."""
        assert self.level_sizes is not None
        like = self.truths.image
        levels = [like.new_full((size,), level) for level, size in enumerate(self.level_sizes)]
        return torch.cat(levels).repeat(self.images)

    def losses_of(self, owner: Tensor) -> Tensor:
        """(B A,) the loss that each anchor would have with its owner, 0 without; inf for NaN."""
        assert self.losses is not None
        shape = (self.images, self.size)
        index, positive = (owner % self.most).view(shape), (owner < self.rows).view(shape)
        return self.losses(index, positive).flatten().nan_to_num(torch.inf)

    def overlap(self, row: Tensor, anchor: Tensor, kind: str) -> Tensor:
        """The overlap of predicted boxes with ground truths, at least 0; see `Measure`."""
        assert self.pred_boxes is not None
        if kind == "iou":  # the same to the bit, in fewer passes
            predicted, truth = take(self.pred_boxes, anchor), take(self.truths.boxes, row)
            return iou_of_planes(predicted.movedim(-1, 0), truth.movedim(-1, 0)).clamp_(min=0)
        shape = (row + anchor).shape
        predicted = take(self.pred_boxes, anchor).expand(*shape, 4)
        truth = take(self.truths.boxes, row).expand(*shape, 4)
        return paired_overlap(predicted, truth, kind=kind).clamp(min=0)

    def overlaps(self, kind: str) -> Measure:
        """`overlap` of that kind, for a matcher that asks again and again.

        Where every ground truth meets every anchor, all are computed at once and then looked up.
        """
        if sync_is_free(self.anchors):
            return partial(self.overlap, kind=kind)
        every = self.overlap(self.row_of_images, self.anchor_of_images, kind).flatten()

        def overlap_of(row: Tensor, anchor: Tensor) -> Tensor:
            return every[row * self.size + anchor % self.size]

        return overlap_of

    def anchor_overlap(self, row: Tensor, anchor: Tensor) -> Tensor:
        """The IoU of anchors with ground truths; see `Measure`."""
        shape = (*(row + anchor).shape, 4)
        truths = take(self.truths.boxes, row)
        return paired_overlap(self.boxes_at(anchor).expand(shape), truths.expand(shape))

    def logit(self, row: Tensor, anchor: Tensor) -> Tensor:
        """The class logits of anchors for the labels of ground truths; see `Measure`."""
        assert self.class_logits is not None
        assert self.truths.labels is not None
        classes = self.class_logits.shape[1]
        label = self.truths.labels[row].clamp(0, classes - 1)  # an ignore region may have any
        return widen(self.class_logits.flatten()[anchor * classes + label])


def take(boxes: Tensor, index: Tensor) -> Tensor:
    """(..., 4) boxes of that index (...), each coordinate contiguous."""
    return boxes.t()[:, index].movedim(0, -1)
