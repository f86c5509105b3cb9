"""Which class an anchor shows, or none."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from detloss.batch import MatchedBatch
from detloss.inputs import LOGITS, PROBABILITIES
from detloss.registry import TERMS
from detloss.terms.base import Over
from detloss.terms.logits import LogitTerm


@TERMS.register("classification")
class ClassificationTerm(LogitTerm):
    """Loss of "class_logits" (B, A, C): the class of a positive's ground truth, or background.

    C counts a background column if the loss has one.

    Args: See `LogitTerm`.

    Example:
        >>> from detloss.classification import SigmoidFocalLoss
        >>> ClassificationTerm(SigmoidFocalLoss(), weight=2.0).reads
        'class_logits'

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002, section
        4: every anchor is classified.
    """

    default_reads: ClassVar[str] = "class_logits"
    default_over: ClassVar[Over] = "all"

    def check(self, predictions: Mapping[str, Tensor], width: int) -> None:
        """See `Term.check`."""
        shape = tuple(predictions[self.reads].shape)
        least = 1 + self.loss.background_columns
        if len(shape) != 3 or shape[2] < least:
            raise ValueError(
                f"predictions[{self.reads!r}] must have shape (B, A, C), C >= {least}, got {shape}"
            )
        if self.reads == LOGITS and PROBABILITIES in predictions and self.loss.background_columns:
            raise ValueError(
                f"predictions[{PROBABILITIES!r}] are answers to yes-or-no questions, and "
                f"{self.loss.type_name} shares one probability among its classes: give "
                f"{LOGITS!r}, such as their logarithm"
            )
        self.check_ignore_index(predictions)

    def logits(self, predictions: Mapping[str, Tensor]) -> Tensor:
        """(B, A, C) its prediction."""
        return predictions[self.reads]

    def labels(self, batch: MatchedBatch, classes: int) -> Tensor:
        """(B, A) class of each anchor; `classes` for background."""
        return batch.labels(classes)

    def truth_labels(self, batch: MatchedBatch, classes: int) -> Tensor:
        """(P,) class of each positive."""
        return batch.truth_labels(classes)

    def labelled(self, batch: MatchedBatch, classes: int) -> Tensor | None:
        """(B, C) bool, "class_mask" of the targets; None where no image has one.

        Raises:
            TypeError: If a mask is not boolean.
            ValueError: If a mask does not fit, or the classes of the loss share one probability.
        """
        targets = batch.inputs.targets
        if not any("class_mask" in target for target in targets):
            return None
        if self.loss.background_columns:
            raise ValueError(
                "targets with 'class_mask' need a yes-or-no classification loss, since the classes "
                f"of a softmax share one probability, got {self.loss.type_name}"
            )
        every = torch.ones(classes, dtype=torch.bool, device=batch.positive.device)
        masks = [target.get("class_mask", every) for target in targets]
        for image, mask in enumerate(masks):
            if mask.dtype != torch.bool or mask.shape != (classes,):
                error = ValueError if mask.dtype == torch.bool else TypeError
                raise error(
                    f"targets[{image}]['class_mask'] must be boolean of shape {(classes,)}, "
                    f"got {mask.dtype} of shape {tuple(mask.shape)}"
                )
        return torch.stack(masks)
