"""Where the object of a positive is."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from detloss.batch import MatchedBatch
from detloss.kernels import Loss, Space
from detloss.normalizers import Normalizer
from detloss.qualities import Quality
from detloss.registry import REGRESSION, TERMS, NonNegative, Registry
from detloss.regression import BoxLoss
from detloss.terms.base import LevelWeights, Over, Term, TermReduction
from detloss.terms.rows import Rows


@TERMS.register("box")
class BoxTerm(Term):
    """Loss of "box_regression" (B, A, K) over the positives, in the space of the loss.

    A loss on boxes gets decoded predictions, one on deltas or bins encoded ground truths.

    Args: See `Term`. Background has no box, so `over` is "positives".
        space: "boxes" for a loss on deltas that is to compare decoded boxes; None for deltas.
        unit: "image" for boxes in widths and heights of their image, with space "boxes"; None for
            the unit of the boxes.

    Example:
        >>> from detloss.regression import GIoULoss
        >>> BoxTerm(GIoULoss(), weight=2.0).over
        'positives'

    Reference:
        Girshick, "Fast R-CNN", ICCV 2015, arXiv:1504.08083, section 2.3: boxes are learned where
        there is an object.
    """

    losses: ClassVar[Registry] = REGRESSION
    takes: ClassVar[type[Loss]] = BoxLoss
    default_reads: ClassVar[str] = "box_regression"
    default_over: ClassVar[Over] = "positives"
    loss: BoxLoss

    def __init__(
        self,
        loss: BoxLoss,
        *,
        weight: NonNegative = 1.0,
        over: Over | None = None,
        space: Literal["boxes"] | None = None,
        unit: Literal["image"] | None = None,
        weigh_by: Quality | None = None,
        normalizer: Normalizer | None = None,
        level_weights: LevelWeights | None = None,
        name: str | None = None,
        reads: str | None = None,
    ) -> None:
        self.space = space
        self.unit = unit
        super().__init__(
            loss,
            weight=weight,
            over=over,
            weigh_by=weigh_by,
            normalizer=normalizer,
            level_weights=level_weights,
            name=name,
            reads=reads,
        )

    def check_options(self) -> None:
        """Raises ValueError if it is to run over all anchors, or in a space that it has not."""
        if self.over == "all":
            raise ValueError("over must be 'positives', since background has no box, got 'all'")
        if self.space is not None and self.loss.space != "deltas":
            raise ValueError(
                f"space is for a loss on deltas, and {self.loss.type_name} is one on "
                f"{self.loss.space}, got {self.space!r}"
            )
        if self.unit is not None and self.space is None:
            raise ValueError(f"unit must come with space 'boxes', got {self.unit!r} alone")

    @property
    def compares(self) -> Space:
        """The space in which predictions and ground truths are compared."""
        return self.loss.space if self.space is None else self.space

    def default_options(self) -> dict[str, Any]:
        """See `Term.default_options`."""
        return {**super().default_options(), "space": None, "unit": None}

    def columns(self, predictions: Mapping[str, Tensor]) -> int:
        """See `Term.columns`."""
        return predictions[self.reads].shape[-1]

    def check(self, predictions: Mapping[str, Tensor], width: int) -> None:
        """See `Term.check`."""
        shape = tuple(predictions[self.reads].shape)
        if shape[2:] != (width,):
            raise ValueError(
                f"predictions[{self.reads!r}] must have shape (B, A, {width}), got {shape}"
            )

    def compute(
        self, batch: MatchedBatch, rows: Rows, divisor: Tensor, reduction: TermReduction
    ) -> Tensor:
        """See `Term.compute`."""
        weight = rows.weights(divisor)
        if reduction == "sum":
            return self._loss(batch, weight, "sum")
        return batch.sum_of_images(self._loss(batch, weight, "none"))

    def observe(self, batch: MatchedBatch, rows: Rows, divisor: Tensor) -> None:
        """See `Term.observe`."""
        self.loss.observe(*self._compared(batch), weight=rows.weights(divisor))

    def sampling_loss(self, batch: MatchedBatch) -> Tensor:
        """(B, A) the unweighted loss of each positive anchor, 0 elsewhere."""
        return batch.of_anchors(self._loss(batch, None, "none"))

    def _loss(
        self, batch: MatchedBatch, weight: Tensor | None, reduction: Literal["sum", "none"]
    ) -> Tensor:
        """The loss of the positives, (P,) or its sum."""
        return self.loss.compute(
            *self._compared(batch),
            image_size=batch.image_size if self.loss.reads_image_size else None,
            weight=weight,
            reduction=reduction,
        )

    def _compared(self, batch: MatchedBatch) -> tuple[Tensor, Tensor]:
        """The predictions and ground truths of the positives, as the loss compares them."""
        if self.compares == "boxes":
            pred, target = batch.decoded(self.reads), batch.truth_boxes
        else:
            pred, target = batch.regression(self.reads), batch.encoded
        if self.loss.space == "bins":
            pred = torch.unflatten(pred, -1, (4, -1))
        if self.unit == "image":
            pred, target = pred / batch.image_sides, target / batch.image_sides
        return pred, target
