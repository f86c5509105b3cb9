"""DetectorLoss: check, match, ask each term, name and add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from detloss.batch import MatchedBatch, match_images
from detloss.coders import Coder, DeltaCoder
from detloss.division import Given, divisors_of_terms
from detloss.inputs import ImageSize, Inputs, Target, check_matches, checked_inputs
from detloss.matchers import Matcher, Matches
from detloss.normalizers import Normalizer, PositivesNormalizer
from detloss.parts import (
    by_key,
    check_parts,
    classifier_of,
    named_terms,
    needed_predictions,
    needs_labels,
    terms_of_matching,
)
from detloss.samplers import AllSampler, Sampler
from detloss.terms import Rows, Term
from detloss.terms.base import TERM_REDUCTIONS, TermReduction
from detloss.validation import validate_call, validate_matches, validate_terms, validation_wanted


@dataclass(frozen=True)
class LossOutput:
    """The loss of a batch, by term, and what it was divided by.

    With ``reduction="image"`` every loss is (B,), and adds up to the 0-d one.

    Attributes:
        total: 0-d, the sum of `terms`: the thing to call ``backward`` on.
        terms: Name -> weighted 0-d loss; the same names in every call.
        unweighted: Name -> the loss before its weight, detached.
        divisors: Name -> what the sum of the term was divided by: 0-d, (B,) where each image has
            its own, (L,) where each pyramid level has.
    """

    total: Tensor
    terms: dict[str, Tensor]
    unweighted: dict[str, Tensor]
    divisors: dict[str, Tensor]

    def log(self) -> dict[str, float]:
        """Numbers for a logger: "total", each term, and each as "<term>/unweighted".

        It is a host sync, so call it as often as you log and not in every step.
        """
        return {
            "total": self.total.sum().item(),
            **{name: value.sum().item() for name, value in self.terms.items()},
            **{f"{name}/unweighted": value.sum().item() for name, value in self.unweighted.items()},
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.terms)})"


@dataclass(frozen=True, repr=False)
class DetectorOutput(LossOutput):
    """The loss of a batch, by term, and what it was computed from.

    Attributes: See `LossOutput`.
        matches: For each image, which anchors are assigned to what, after sampling.
    """

    matches: list[Matches]

    def __repr__(self) -> str:
        return f"DetectorOutput({', '.join(self.terms)}; {len(self.matches)} images)"


class Matched(NamedTuple):
    """A batch that is matched, and the rows of each term; nothing is summed yet."""

    batch: MatchedBatch
    rows: dict[str, Rows]


class DetectorLoss(nn.Module):
    """The loss of a one-stage detector, put together from parts.

    For each image the matcher assigns anchors to ground truths, and the sampler chooses the anchors
    that count. Each term then sums the losses of its rows, divides the sum by the number that its
    normalizer counts, and multiplies the quotient by its weight.

    ``train()`` and ``eval()`` change only a normalizer or a loss that has a memory or asks other
    ranks. Every prediction that a term reads gets a gradient in every call: zero where no image has
    an object.

    Args:
        matcher: Which anchor is assigned to which ground truth.
        terms: The losses, in order. A term is called by its key, such as "box"; where several have
            the same key, or a term has a name, "box/giou".
        coder: What "box_regression" means; `DeltaCoder` by default.
        sampler: Which matched anchors count; all by default.
        normalizer: What divides the sum of a term that has no normalizer of its own; by default
            the number of positives of the batch.
        validate: Debug validation: look at the values of predictions, targets and losses in every
            call, name the first bad one, and warn of objects to which no anchor is assigned. Off by
            default, since it is a host sync; the environment variable ``DETLOSS_VALIDATE=1``
            switches it on for every criterion built after.

    Raises:
        ValueError: If parts do not go together: a space that the coder does not have, a quality
            that nothing gives, two terms of one name.

    Example:
        >>> from detloss.classification import SigmoidFocalLoss
        >>> from detloss.matchers import MaxIoUMatcher
        >>> from detloss.regression import GIoULoss
        >>> from detloss.terms import BoxTerm, ClassificationTerm
        >>> criterion = DetectorLoss(
        ...     matcher=MaxIoUMatcher(),
        ...     terms=[ClassificationTerm(SigmoidFocalLoss()), BoxTerm(GIoULoss())],
        ... )
        >>> logits, regression = torch.zeros(1, 2, 3), torch.zeros(1, 2, 4)
        >>> anchors = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
        >>> output = criterion(
        ...     {"class_logits": logits, "box_regression": regression},
        ...     [{"boxes": anchors[:1], "labels": torch.tensor([2])}],
        ...     anchors=anchors,
        ... )
        >>> output.terms
        {'classification': tensor(0.6931), 'box': tensor(0.)}
    """

    __jit_ignored_attributes__ = ("matcher", "coder", "sampler", "terms", "normalizer")
    """What TorchScript leaves out, so that a module with a criterion can be scripted without it."""
    terms: Mapping[str, Term]

    def __init__(
        self,
        *,
        matcher: Matcher,
        terms: Sequence[Term] = (),
        coder: Coder | None = None,
        sampler: Sampler | None = None,
        normalizer: Normalizer | None = None,
        validate: bool = False,
    ) -> None:
        super().__init__()
        self.matcher = matcher
        self.coder = coder if coder is not None else DeltaCoder()
        self.sampler = sampler if sampler is not None else AllSampler()
        self.terms = nn.ModuleDict(named_terms(terms))  # type: ignore[assignment]
        self.normalizer = normalizer if normalizer is not None else PositivesNormalizer()
        self.validate = validate or validation_wanted()
        check_parts(self.terms, self.matcher, self.coder, self.sampler, self.normalizer)
        self._needed = needed_predictions(self.terms.values(), self.matcher)

    def config(self) -> dict[str, Any]:
        """The resolved config; `detloss.build` makes an equal criterion of it."""
        return {
            "matcher": self.matcher.config(),
            "coder": self.coder.config(),
            "sampler": self.sampler.config(),
            **by_key(self.terms.values()),
            "normalizer": self.normalizer.config(),
        }

    def extra_repr(self) -> str:
        return f"validate={self.validate}"

    @torch.jit.unused
    def forward(
        self,
        predictions: Mapping[str, Tensor],
        targets: Sequence[Target],
        *,
        anchors: Tensor | Sequence[Tensor] | None = None,
        level_sizes: Sequence[int] | None = None,
        image_size: ImageSize | None = None,
        normalizer: Given | Mapping[str, Given] | None = None,
        matches: Sequence[Matches] | None = None,
        reduction: TermReduction = "sum",
    ) -> DetectorOutput:
        """The loss of a batch of B images with A anchors each.

        Args:
            predictions: What the terms read, floating point: "class_logits" (B, A, C), where C
                counts a background column if the loss has one; "box_regression" (B, A, K), K the
                coder's width; "objectness", "centerness", "iou_score" (B, A) or (B, A, 1).
                "class_probabilities" may stand for "class_logits".
            targets: For each image "boxes" (M, 4) as (x1, y1, x2, y2) in the unit of the anchors,
                "labels" (M,) integers in 0..C-1. M may be 0. Optionally "ignore" (M,) bool: crowd
                or don't-care regions; "weights" (M,): factors of all losses of the anchors that
                are assigned to a box; "class_mask" (C,) bool: the classes that are labelled in
                this image, the others get no gradient (not for a softmax); "size" (2,): height and
                width of the image, where a part needs it.
            anchors: (A, 4), or a list of B such. A point is the square of its stride's side.
            level_sizes: Anchors of each pyramid level, where a part needs it.
            image_size: Height and width of all images, or (B, 2) of each, where a part needs it
                and targets have no "size".
            normalizer: Divisor of every term for this call, in place of its normalizer's. A number,
                such as the positives of all micro-batches of a step; (B,) numbers, one an image;
                or a mapping from the names of terms to such, as `DetectorOutput.divisors` is.
            matches: The matches of each image, such as those of `match`, in place of the
                matcher's. Those with ``sampled=False`` are sampled.
            reduction: "sum", or "image" for losses (B,) that add up to those of the batch.

        Returns:
            Total, terms, divisors and matches.

        Raises:
            TypeError: If a tensor has the wrong type.
            ValueError: If something is missing or a shape does not fit; with `validate`, if a
                value is bad.
        """
        if reduction not in TERM_REDUCTIONS:
            raise ValueError(f"reduction must be 'sum' or 'image', got {reduction!r}")
        matched = self.matched(predictions, targets, anchors, level_sizes, image_size, matches)
        divided_by = divisors_of_terms(matched.rows, self.normalizers(), normalizer)
        self.observe(matched, divided_by)
        if normalizer is None:
            self.move()
        return self.summed(matched, divided_by, reduction)

    def matched(
        self,
        predictions: Mapping[str, Tensor],
        targets: Sequence[Target],
        anchors: Tensor | Sequence[Tensor] | None,
        level_sizes: Sequence[int] | None,
        image_size: ImageSize | None,
        matches: Sequence[Matches] | None,
    ) -> Matched:
        """The first half of `forward`, whose arguments these are: all but what divides."""
        inputs = self._inputs(
            predictions, targets, anchors, level_sizes, image_size, needed=self._needed
        )
        if matches is not None:
            check_matches(matches, inputs)
        if self.validate:
            validate_call(inputs, self.terms, matches or [])
        batch = MatchedBatch(inputs, self._matches(inputs, matches), self.coder)
        return Matched(batch, self._rows(batch))

    def observe(self, matched: Matched, divided_by: Mapping[str, Tensor]) -> None:
        """Shows the rows of a call to the losses that have a memory."""
        for name, term in self.terms.items():
            if term.loss.has_memory:
                term.observe(matched.batch, matched.rows[name], divided_by[name])

    def move(self) -> None:
        """Moves the memories of losses by a step, such as a running mean.

        A call does so, in training mode and before it computes the loss. One with ``normalizer=``
        does not, as a step has several of them: after the last one, this moves by the rows of all.
        """
        for term in self.terms.values():
            if term.loss.has_memory:
                term.loss.move()

    def summed(
        self,
        matched: Matched,
        divided_by: dict[str, Tensor],
        reduction: TermReduction,
        factor: float = 1.0,
    ) -> DetectorOutput:
        """The second half of `forward`: the terms over the given divisors, times `factor`."""
        batch, rows = matched
        losses = {
            name: term(batch, rows[name], divided_by[name], reduction)
            for name, term in self.terms.items()
        }
        if self.validate:
            validate_terms(losses)
        terms = {
            name: term.weighted(losses[name], batch.inputs.predictions, factor)
            for name, term in self.terms.items()
        }
        total: Tensor | int = sum(terms.values())
        if not isinstance(total, Tensor):  # a criterion without terms
            shape = () if reduction == "sum" else (batch.inputs.images,)
            total = batch.positive.new_zeros(shape, dtype=torch.float32)
        return DetectorOutput(
            total=total,
            terms=terms,
            unweighted={name: loss.detach() for name, loss in losses.items()},
            divisors=divided_by,
            matches=list(batch.matches),
        )

    @torch.no_grad()
    def match(
        self,
        targets: Sequence[Target],
        *,
        anchors: Tensor | Sequence[Tensor] | None = None,
        predictions: Mapping[str, Tensor] | None = None,
        level_sizes: Sequence[int] | None = None,
    ) -> list[Matches]:
        """Which anchors are assigned to what in each image, after sampling: as in `forward`.

        With it the positives of all micro-batches of a step are known before the first of them, and
        can be passed to each as ``normalizer``.

        Args:
            targets: See `forward`.
            anchors: See `forward`.
            predictions: See `forward`; only for a matcher or sampler that looks at them.
            level_sizes: See `forward`.

        Raises:
            TypeError: If a tensor has the wrong type.
            ValueError: If something is missing or a shape does not fit.

        Example:
            >>> import detloss
            >>> criterion = detloss.load_config("configs/retinanet.yaml")
            >>> anchors = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
            >>> target = {"boxes": anchors[1:], "labels": torch.tensor([2])}
            >>> criterion.match([target], anchors=anchors)[0].positive
            tensor([False,  True])
        """
        needed = [] if predictions is None else self._needed
        inputs = self._inputs(predictions or {}, targets, anchors, level_sizes, needed=needed)
        if self.validate:
            validate_call(inputs, self.terms, [])
        return self._matches(inputs, None)

    def normalizers(self) -> dict[str, Normalizer]:
        """What divides each term."""
        return {name: term.normalizer or self.normalizer for name, term in self.terms.items()}

    def _inputs(
        self,
        predictions: Mapping[str, Tensor],
        targets: Sequence[Target],
        anchors: Tensor | Sequence[Tensor] | None,
        level_sizes: Sequence[int] | None,
        image_size: ImageSize | None = None,
        *,
        needed: Sequence[str],
    ) -> Inputs:
        """The checked batch. Without `needed` predictions their shapes are not checked."""

        def check(given: Mapping[str, Tensor]) -> None:
            for term in self.terms.values() if needed else ():
                term.check(given, self.coder.width)

        return checked_inputs(
            predictions,
            targets,
            anchors,
            level_sizes,
            image_size,
            needed=needed,
            labels=needs_labels(self.terms.values(), self.matcher),
            check=check,
        )

    @torch.no_grad()
    def _matches(self, inputs: Inputs, given: Sequence[Matches] | None) -> list[Matches]:
        """The matches of each image, sampled."""
        matches = list(given or ())
        if given is None:
            losses_of = partial(self._losses_of, inputs)
            matches = match_images(self.matcher, inputs, self.coder, losses_of)
            if self.validate:
                validate_matches(inputs.targets, matches)
        if all(match.sampled for match in matches):
            return matches
        losses = None
        if self.sampler.needs_class_loss:
            term = classifier_of(self.terms.values(), over="all")
            if term is None or term.reads not in inputs.predictions:
                raise ValueError(f"sampler {self.sampler.type_name} needs predictions, got None")
            losses = term.sampling_loss(MatchedBatch(inputs, matches, self.coder))
        return self.sampler.batch(matches, losses)

    def _losses_of(
        self, inputs: Inputs, target_index: Tensor, positive: Tensor, first: int = 0
    ) -> Tensor:
        """The weighted sum of the losses of classes and boxes; see `detloss.matchers.Losses`."""
        none = torch.zeros_like(positive[0])
        matches = [Matches(none.long(), none, ~none)] * inputs.images
        index = torch.where(positive, target_index, 0)
        for image, (of_image, flags) in enumerate(zip(index, positive, strict=True), start=first):
            matches[image] = Matches(of_image, flags, ~flags)
        batch = MatchedBatch(inputs, matches, self.coder)
        losses = [
            term.sampling_loss(batch) * term.weight
            for term in terms_of_matching(self.terms.values())
        ]
        return torch.stack(losses).sum(0)[first : first + len(positive)]

    def _rows(self, batch: MatchedBatch) -> dict[str, Rows]:
        """The rows of each term."""
        classifier = classifier_of(self.terms.values())
        return {
            name: Rows(
                self.terms[name], batch, classifier, divides_levels=normalizer.per == "level"
            )
            for name, normalizer in self.normalizers().items()
        }
