"""Where the object of a positive is."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from detloss.batch import MatchedBatch
from detloss.kernels import Loss
from detloss.registry import REGRESSION, TERMS, Registry
from detloss.regression import BoxLoss
from detloss.terms.base import Over, Term, TermReduction
from detloss.terms.rows import Rows


@TERMS.register("box")
class BoxTerm(Term):
    """Loss of "box_regression" (B, A, K) over the positives, in the space of the loss.

    A loss on boxes gets decoded predictions, one on deltas or bins encoded ground truths.

    Args: See `Term`. Background has no box, so `over` is "positives".

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

    def check_options(self) -> None:
        """Raises ValueError if it is to run over all anchors."""
        if self.over == "all":
            raise ValueError("over must be 'positives', since background has no box, got 'all'")

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
        if self.loss.space == "boxes":
            pred, target = batch.decoded(self.reads), batch.truth_boxes
        else:
            pred, target = batch.regression(self.reads), batch.encoded
        if self.loss.space == "bins":
            pred = torch.unflatten(pred, -1, (4, -1))
        loss = self.loss.compute(
            pred,
            target,
            weight=rows.weights(divisor),
            reduction="sum" if reduction == "sum" else "none",
        )
        return loss if reduction == "sum" else batch.sum_of_images(loss)
