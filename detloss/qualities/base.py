"""What every quality is, and what it may look at."""

from abc import abstractmethod
from typing import Protocol

import torch
from torch import Tensor

from detloss.registry import Part
from detloss.tensors import wide_type


class Positives(Protocol):
    """The P positives of a batch, each an anchor and the ground truth that it is assigned to.

    Nothing here carries a gradient. Each entry is computed when it is first asked for.
    """

    @property
    def anchors(self) -> Tensor:
        """(P, 4) as (x1, y1, x2, y2)."""

    @property
    def truth_boxes(self) -> Tensor:
        """(P, 4) ground-truth boxes in the unit of the anchors."""

    def pred_boxes(self, name: str) -> Tensor:
        """(P, 4) boxes decoded from the prediction of that name, in the same unit."""

    @property
    def probabilities(self) -> Tensor:
        """(P, C) predicted probability of each class, the sigmoid of its logit."""

    @property
    def score(self) -> Tensor:
        """(P,) the matcher's own measure."""


class Quality(Part):
    """How good each positive is, in [0, 1]; a constant for the gradient.

    `needs` names what must be there: predictions, such as "box_regression" and "class_logits", and
    "score" from the matcher.
    """

    needs: frozenset[str] = frozenset()

    @abstractmethod
    def forward(self, positives: Positives) -> Tensor:
        """(P,) the quality of each positive."""
        raise NotImplementedError


class HeatQuality(Quality):
    """A quality of any anchor with any ground truth by their places, not of positives alone.

    As the label of all anchors it is a heat map: an anchor's label for a class is the largest
    quality that it has with an object of that class, whether it is assigned to it or not.
    """

    @abstractmethod
    def of_planes(self, truths: Tensor, anchors: Tensor) -> Tensor:
        """The quality of ground truths and anchors, finite planes (4, ...) that broadcast.

        It is 0 where they share no area, or one of them has none.
        """
        raise NotImplementedError

    def forward(self, positives: Positives) -> Tensor:
        """See `Quality.forward`."""
        truths, anchors = positives.truth_boxes, positives.anchors
        dtype = torch.promote_types(wide_type(truths), wide_type(anchors))
        return self.of_planes(*(boxes.to(dtype).movedim(-1, 0) for boxes in (truths, anchors)))
