"""The rows of one term in a matched batch: what weighs them, and what a normalizer may count."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from detloss.batch import MatchedBatch, computed_once
from detloss.qualities import Quality
from detloss.tensors import from_host, wide_type


class Weighing(Protocol):
    """What the rows of a term are computed from; see `detloss.terms.Term`, which has it."""

    @property
    def reads(self) -> str:
        """Name of its prediction."""

    @property
    def over(self) -> str:
        """The anchors that it runs over."""

    @property
    def weigh_by(self) -> Quality | None:
        """A quality that multiplies each row."""

    @property
    def level_weights(self) -> Sequence[float] | None:
        """Factor of each pyramid level."""

    def columns(self, predictions: Mapping[str, Tensor]) -> int:
        """Values in a row of its prediction."""

    def class_weights(self, batch: MatchedBatch) -> Tensor | None:
        """Weights of the rows' classes that the loss multiplies in."""


class Labelling(Protocol):
    """A classification term, for the labels of its positives; see `detloss.terms.LogitTerm`."""

    def positive_labels(self, batch: MatchedBatch) -> Tensor:
        """(B, A) the label of each positive, 0 elsewhere."""


class Rows:
    """The rows that a term runs over: every anchor that counts, or the positives.

    It is what `detloss.normalizers.TermRows` describes.

    Args:
        term: The term.
        batch: The matched batch.
        classifier: The classification term; None where every positive has a label of 1.
        divides_levels: Whether each pyramid level has a divisor of its own.
    """

    def __init__(
        self,
        term: Weighing,
        batch: MatchedBatch,
        classifier: Labelling | None,
        *,
        divides_levels: bool = False,
    ) -> None:
        self.term = term
        self.batch = batch
        self.divides_levels = divides_levels
        self._classifier = classifier

    @property
    def dtype(self) -> torch.dtype:
        """What the term is computed in."""
        return wide_type(self.batch.inputs.predictions[self.term.reads])

    @property
    def images(self) -> int:
        """B."""
        return self.batch.inputs.images

    @property
    def level_sizes(self) -> Sequence[int]:
        """Anchors of each pyramid level."""
        return self.batch.inputs.levels()

    @property
    def positive(self) -> Tensor:
        """(B, A) bool."""
        return self.batch.positive

    @property
    @computed_once
    def counted(self) -> Tensor:
        """(B, A) bool, not ignored."""
        return ~self.batch.ignored

    @property
    @computed_once
    def ground_truths(self) -> Tensor:
        """(B,) boxes to learn."""
        targets, like = self.batch.inputs.targets, self.positive
        if not any("ignore" in target for target in targets):
            return from_host([len(target["boxes"]) for target in targets], like)
        learned = ~self.batch.of_truths("ignore", False, torch.bool)
        counts = like.new_zeros(self.images, dtype=torch.long)
        return counts.index_add(0, self.batch.image_of_truths, learned.long())

    @property
    @computed_once
    def pairs(self) -> Tensor:
        """(B, A) pairs of each anchor."""
        return self._spread(None) if self.batch.has_pairs else self.positive

    @property
    def rows(self) -> Tensor:
        """(B, A) rows of each anchor."""
        return self.pairs if self.term.over == "positives" else self.counted

    @property
    def columns(self) -> int:
        """K."""
        return self.term.columns(self.batch.inputs.predictions)

    @property
    @computed_once
    def target_scores(self) -> Tensor:
        """(B, A) label of each positive times its ground truth's weight."""
        classifier, weights = self._classifier, self.batch.anchor_weights
        scores = self.positive if classifier is None else classifier.positive_labels(self.batch)
        return scores if weights is None else _times(scores, weights)

    @property
    @computed_once
    def row_weights(self) -> Tensor:
        """(B, A) product of the factors of each anchor's row."""
        factors, of_class = self.factors, self.term.class_weights(self.batch)
        if of_class is not None:  # the loss itself multiplies them in
            factors = of_class if factors is None else factors * of_class
        if self.term.over == "positives":
            return self._spread(factors)
        return self.counted if factors is None else torch.where(self.counted, factors, 0)

    @property
    @computed_once
    def factors(self) -> Tensor | None:
        """Product of what weighs each row, (B, A) or (P,); None for all 1.

        These are the weight of its ground truth and the quality that the term weighs by.
        """
        batch, term = self.batch, self.term
        with torch.no_grad():
            factors = batch.anchor_weights if term.over == "all" else batch.truth_weights
            if term.weigh_by is not None:
                quality = batch.quality(term.weigh_by)
                factors = quality if factors is None else _times(quality, factors)
        return factors

    def weights(self, divisor: Tensor) -> Tensor:
        """(B, A) or (P,) the factor of each row, divided by the divisor.

        It is 0 in a row (P,) that is no positive, see `MatchedBatch`.

        Args:
            divisor: () of the batch, (B,) of each image, or (L,) of each pyramid level.
        """
        batch, divisor = self.batch, divisor.to(self.dtype)
        with torch.no_grad():
            # without a floor a count may be 0, or too small to divide by: then the term is 0
            countable = divisor >= torch.finfo(divisor.dtype).tiny
            scale = torch.where(countable, divisor.reciprocal(), 0)
            scale = self._of_anchors(scale)
            if self.term.level_weights is not None:
                weights = from_host(self.term.level_weights, scale, scale.dtype)
                scale = scale * self._of_levels(weights)
            if self.term.over == "positives":
                scale = batch.take(scale)
            weights = scale if self.factors is None else scale * self.factors
            if self.term.over == "positives" and batch.is_positive is not None:
                weights = torch.where(batch.is_positive, weights, 0)
        return weights

    def _of_anchors(self, scale: Tensor) -> Tensor:
        """(B, A) the value of each anchor, from `scale`: (), (B,) of images or (L,) of levels."""
        if scale.ndim and self.divides_levels:
            scale = self._of_levels(scale)
        elif scale.ndim:
            scale = scale[:, None]
        return scale.expand(self.positive.shape)

    def _of_levels(self, values: Tensor) -> Tensor:
        """(A,) the value (L,) of each anchor's pyramid level."""
        sizes = self.level_sizes
        if len(sizes) != len(values):
            raise ValueError(
                f"level_sizes must be of {len(values)} levels, one for each value, got {len(sizes)}"
            )
        parts = [value.expand(size) for value, size in zip(values.unbind(), sizes, strict=True)]
        return torch.cat(parts)

    def _spread(self, values: Tensor | None) -> Tensor:
        """(B, A) sums of `values` (P,), or of ones, of each anchor's positives."""
        batch = self.batch
        if batch.index is None:
            return batch.positive if values is None else self._masked(values)
        if batch.is_positive is not None:
            values = batch.is_positive.long() if values is None else values * batch.is_positive
        elif values is None:
            values = batch.index.new_ones(len(batch.index))
        sums = values.new_zeros(batch.positive.numel()).index_add_(0, batch.index, values)
        return sums.view(batch.positive.shape)

    def _masked(self, values: Tensor) -> Tensor:
        return torch.where(self.batch.positive, values.view(self.batch.positive.shape), 0)


def _times(quality: Tensor, weights: Tensor) -> Tensor:
    """The product, which is 0 where a weight is 0, also of a quality that is NaN."""
    return torch.where(weights == 0, 0, quality * weights)
