"""What the terms of logits share: those of classes, and those of one logit an anchor."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from detloss.batch import MatchedBatch
from detloss.classification import ClassificationLoss
from detloss.kernels import Loss
from detloss.kernels.reduction import only_counted
from detloss.kernels.softmax import class_columns
from detloss.normalizers import Normalizer
from detloss.qualities import HeatQuality, Quality
from detloss.registry import CLASSIFICATION, QUALITIES, NonNegative, Registry
from detloss.terms.base import LevelWeights, Over, Term, TermReduction
from detloss.terms.rows import Rows


class LogitTerm(Term):
    """A classification loss of a row of logits (C,) for each anchor.

    Args:
        loss: A classification loss with a gradient.
        label: The label of each positive, instead of 1: a quality; "one" for 1; None for the
            default. A `HeatQuality` over all anchors is a heat map, whoever is positive.
        ignore_by: A `HeatQuality`: the class of an object is ignored at the anchors where it is
            above 0, unless they are positives of that class; for a term over all anchors.

    The others as in `Term`.
    """

    losses: ClassVar[Registry] = CLASSIFICATION
    takes: ClassVar[type[Loss]] = ClassificationLoss
    default_label: ClassVar[str] = "one"
    """Label of the term where neither the config nor the loss asks for another."""
    one_logit: ClassVar[bool] = False
    """Whether the row of an anchor is a single logit, which leaves no room for a background."""
    loss: ClassificationLoss

    def __init__(
        self,
        loss: ClassificationLoss,
        *,
        weight: NonNegative = 1.0,
        label: Quality | Literal["one"] | None = None,
        ignore_by: Quality | None = None,
        over: Over | None = None,
        weigh_by: Quality | None = None,
        normalizer: Normalizer | None = None,
        level_weights: LevelWeights | None = None,
        name: str | None = None,
        reads: str | None = None,
    ) -> None:
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
        if not loss.differentiable:
            raise ValueError(
                f"{loss.type_name} is a metric without gradient, it cannot be trained on"
            )
        if self.one_logit and loss.background_columns:
            raise ValueError(
                f"{self.type_name} is one logit an anchor and needs a yes-or-no loss, "
                f"got {loss.type_name}"
            )
        if label is None:
            label = self._default_label()
        if isinstance(label, Quality) and not loss.takes_quality:
            raise ValueError(
                f"label: {loss.type_name} has hard labels only, since its classes share one "
                f"probability, got {label.type_name}"
            )
        self.label = label if isinstance(label, Quality) else None
        self.ignore_by = ignore_by
        if ignore_by is not None:
            self._check_ignore_by(ignore_by)

    def _check_ignore_by(self, quality: Quality) -> None:
        if self.over != "all":
            raise ValueError(
                "ignore_by needs over 'all', since it is about other anchors than positives, got "
                f"ignore_by {quality.type_name!r} with over {self.over!r}"
            )
        if self.loss.background_columns:
            raise ValueError(
                "ignore_by needs a yes-or-no loss, since the classes of a softmax share one "
                f"probability, got {self.loss.type_name}"
            )
        if not isinstance(quality, HeatQuality):
            fit = [name for name in QUALITIES.names() if issubclass(QUALITIES[name], HeatQuality)]
            raise ValueError(
                "ignore_by must be a quality of any anchor with any ground truth, "
                f"{' or '.join(fit)}, got {quality.type_name!r}"
            )

    def _default_label(self) -> Quality | None:
        """The label that the term has by default, or else the loss."""
        name: str = self.default_label
        if name == "one":
            name = self.loss.default_label
        return None if name == "one" else cast(Quality, QUALITIES[name]())

    def config(self) -> dict[str, Any]:
        """See `Term.config`."""
        resolved, default = super().config(), self._default_label()
        if repr(self.label) != repr(default):
            resolved["label"] = "one" if self.label is None else self.label.config()
        return resolved

    def default_options(self) -> dict[str, Any]:
        """See `Term.default_options`."""
        return {**super().default_options(), "ignore_by": None}

    @abstractmethod
    def logits(self, predictions: Mapping[str, Tensor]) -> Tensor:
        """(B, A, C) its prediction."""
        raise NotImplementedError

    @abstractmethod
    def labels(self, batch: MatchedBatch, classes: int) -> Tensor:
        """(B, A) class of each anchor; `classes` for background."""
        raise NotImplementedError

    @abstractmethod
    def truth_labels(self, batch: MatchedBatch, classes: int) -> Tensor:
        """(P,) class of each positive."""
        raise NotImplementedError

    def labelled(self, batch: MatchedBatch, classes: int) -> Tensor | None:
        """(B, C) bool, the classes that are labelled in each image; None for all in all."""
        return None

    def heat(self, batch: MatchedBatch) -> Tensor | None:
        """(B, A, C) the label of each anchor and class where it is a heat map, else None."""
        if self.over != "all" or not isinstance(self.label, HeatQuality):
            return None
        return self._heat_of(self.label, batch)

    def _heat_of(self, quality: HeatQuality, batch: MatchedBatch) -> Tensor:
        classes = None if self.one_logit else self.classes(batch.inputs.predictions)
        return batch.heat(quality, classes)

    def asked(self, batch: MatchedBatch, classes: int) -> Tensor | None:
        """(B, A, C) or (B, 1, C) bool, the classes that count at each anchor; None for all."""
        labelled = self.labelled(batch, classes)
        asked = None if labelled is None else labelled[:, None]
        if isinstance(self.ignore_by, HeatQuality):
            column = torch.arange(classes, device=batch.positive.device)
            far = self._heat_of(self.ignore_by, batch) == 0
            far |= self.labels(batch, classes)[..., None] == column
            asked = far if asked is None else asked & far
        return asked

    def positive_labels(self, batch: MatchedBatch) -> Tensor:
        """(B, A) the label of each positive, 0 elsewhere; of a heat map the number of its ones."""
        heat = self.heat(batch)
        if heat is not None:
            return torch.where(batch.ignored, 0, (heat == 1).sum(-1))
        if self.label is None:
            return batch.positive
        return torch.where(batch.positive, batch.quality_of_anchors(self.label), 0)

    @property
    def has_factors(self) -> bool:
        """See `Term.has_factors`."""
        return super().has_factors or self._weighs_classes

    @property
    def _weighs_classes(self) -> bool:
        return bool(self.loss.background_columns) and self.loss.class_weight is not None

    def class_weights(self, batch: MatchedBatch) -> Tensor | None:
        """See `Term.class_weights`; background has a weight, too."""
        if not self._weighs_classes:
            return None
        weights = self.loss.class_weight
        assert weights is not None
        classes = self.classes(batch.inputs.predictions)
        labels = self.labels if self.over == "all" else self.truth_labels
        column = class_columns(labels(batch, classes), classes + 1, self.loss.background_index)
        return weights.to(column.device)[column]

    def check_ignore_index(self, predictions: Mapping[str, Tensor]) -> None:
        """Raises ValueError if the loss would leave out the rows of a class, or the background."""
        classes = self.classes(predictions)
        if 0 <= self.loss.ignore_index <= classes:
            raise ValueError(
                f"{self.type_name}: ignore_index must not be in 0..{classes}, the classes "
                f"and the background, got {self.loss.ignore_index}"
            )

    def columns(self, predictions: Mapping[str, Tensor]) -> int:
        """See `Term.columns`."""
        return self.logits(predictions).shape[-1]

    def classes(self, predictions: Mapping[str, Tensor]) -> int:
        """The foreground classes, C; also the class index that means background."""
        return self.columns(predictions) - self.loss.background_columns

    def compute(
        self, batch: MatchedBatch, rows: Rows, divisor: Tensor, reduction: TermReduction
    ) -> Tensor:
        """See `Term.compute`."""
        logits = self.logits(batch.inputs.predictions)
        weight = rows.weights(divisor)
        if self.over == "all":
            return self.loss_of_anchors(batch, logits, weight, reduction)
        classes = self.classes(batch.inputs.predictions)
        labelled = self.labelled(batch, classes)
        if labelled is not None:
            weight = torch.where(labelled[batch.image], weight[:, None], 0)
        loss = self.loss.compute(
            batch.take(logits),
            self.truth_labels(batch, classes),
            quality=None if self.label is None else batch.quality(self.label),
            weight=weight,
            reduction="sum" if reduction == "sum" else "none",
        )
        if reduction == "sum":
            return loss
        return batch.sum_of_images(loss.sum(-1) if loss.ndim == 2 else loss)

    def loss_of_anchors(
        self,
        batch: MatchedBatch,
        logits: Tensor,
        weight: Tensor | None,
        reduction: Literal["sum", "image", "none"],
    ) -> Tensor:
        """The loss of every anchor that counts, logits (B, A, C) and weight (B, A), reduced."""
        classes = self.classes(batch.inputs.predictions)
        with torch.no_grad():
            target, quality = self.heat(batch), None
            if target is not None:
                target = self.loss.dense_labels(target)
                weight = only_counted(weight, ~batch.ignored)
            else:
                labels = self.labels(batch, classes)
                target = torch.where(batch.ignored, self.loss.ignore_index, labels)
                quality = None if self.label is None else batch.quality_of_anchors(self.label)
            asked = self.asked(batch, classes)
            if asked is not None:
                weight = (
                    asked.expand_as(logits)
                    if weight is None
                    else torch.where(asked, weight[..., None], 0)
                )
        return self.loss.compute(
            logits, target, quality=quality, weight=weight, reduction=reduction
        )

    def sampling_loss(self, batch: MatchedBatch) -> Tensor:
        """(B, A) the unweighted loss of each anchor, for a sampler that chooses by it."""
        logits = self.logits(batch.inputs.predictions)
        loss = self.loss_of_anchors(batch, logits, None, "none")
        return loss.sum(-1) if loss.ndim == logits.ndim else loss


class ScoreTerm(LogitTerm):
    """A yes-or-no loss of one logit an anchor, (B, A) or (B, A, 1): is there an object, how good.

    Args: See `LogitTerm`.
    """

    one_logit: ClassVar[bool] = True

    def check(self, predictions: Mapping[str, Tensor], width: int) -> None:
        """See `Term.check`."""
        shape = tuple(predictions[self.reads].shape)
        if len(shape) != 2 and shape[2:] != (1,):
            raise ValueError(
                f"predictions[{self.reads!r}] must have shape (B, A) or (B, A, 1), got {shape}"
            )
        self.check_ignore_index(predictions)

    def logits(self, predictions: Mapping[str, Tensor]) -> Tensor:
        """(B, A, 1) its prediction."""
        values = predictions[self.reads]
        return values[..., None] if values.ndim == 2 else values

    def labels(self, batch: MatchedBatch, classes: int) -> Tensor:
        """(B, A) 0 for positive anchors, 1 for background."""
        return torch.where(batch.positive, 0, classes)

    def truth_labels(self, batch: MatchedBatch, classes: int) -> Tensor:
        """(P,) zeros."""
        return torch.zeros_like(batch.truth)
