"""DetectorLoss: check, match, ask each term, name and add."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from detloss.batch import MatchedBatch
from detloss.coders import Coder, DeltaCoder
from detloss.inputs import Inputs, Target, checked_inputs
from detloss.matchers import Matcher, Matches
from detloss.normalizers import Normalizer, PositivesNormalizer, divisors
from detloss.samplers import AllSampler, Sampler
from detloss.terms import LogitTerm, Rows, Term
from detloss.terms.base import TermReduction
from detloss.validation import validate_inputs, validate_matches, validate_terms, validation_wanted


@dataclass(frozen=True)
class DetectorOutput:
    """What a criterion says of a batch.

    With ``reduction="image"`` every loss is (B,), and adds up to the 0-d one.

    Attributes:
        total: 0-d, the sum of `terms`: the thing to call ``backward`` on.
        terms: Name -> weighted 0-d loss; the same names in every call.
        unweighted: Name -> the loss before its weight, detached.
        divisors: Name -> what the sum of the term was divided by: 0-d, (B,) where each image has
            its own, (L,) where each pyramid level has.
        matches: For each image, which anchors are assigned to what, after sampling.
    """

    total: Tensor
    terms: dict[str, Tensor]
    unweighted: dict[str, Tensor]
    divisors: dict[str, Tensor]
    matches: list[Matches]

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
        return f"DetectorOutput({', '.join(self.terms)}; {len(self.matches)} images)"


class DetectorLoss(nn.Module):
    """The loss of a one-stage detector, put together from parts.

    For each image the matcher says which anchors are assigned to which ground truth and the sampler
    which of them count. Then each term sums the loss of its rows, divides the sum by what its
    normalizer says and multiplies it by its weight.

    Nothing depends on ``train()`` or ``eval()`` but a normalizer with a memory, or one that asks
    other ranks. Every prediction that a term reads gets a gradient in every call, zero where no
    image has an object.

    Args:
        matcher: Which anchor is assigned to which ground truth.
        terms: The losses, in order. A term is called by its key, such as "box"; where several have
            the same key, or a term has a name, "box/giou".
        coder: What "box_regression" means; `DeltaCoder` by default.
        sampler: Which matched anchors count; all by default.
        normalizer: What the sums of terms without one of their own are divided by; the positives
            of the batch by default.
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
        for term in terms:
            term.divides_levels = self._normalizer_of(term).per == "level"
        check_parts(self)
        self._needed = needed_predictions(self.terms.values(), matcher)
        self._needs_labels = "gt_labels" in matcher.needs or any(
            isinstance(term, LogitTerm) and not term.one_logit for term in terms
        )

    def _normalizer_of(self, term: Term) -> Normalizer:
        return term.normalizer if term.normalizer is not None else self.normalizer

    def config(self) -> dict[str, Any]:
        """The resolved config; `detloss.build` makes an equal criterion of it."""
        keys: dict[str, list[Term]] = {}
        for term in self.terms.values():
            keys.setdefault(term.type_name, []).append(term)
        return {
            "matcher": self.matcher.config(),
            "coder": self.coder.config(),
            "sampler": self.sampler.config(),
            **{
                key: terms[0].config() if _stands_alone(terms) else [t.config() for t in terms]
                for key, terms in keys.items()
            },
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
        normalizer: Tensor | float | Mapping[str, Tensor | float] | None = None,
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
                this image, the others get no gradient (not for a softmax).
            anchors: (A, 4), or a list of B such. A point is the square of its stride's side.
            level_sizes: Anchors of each pyramid level, where a part needs it.
            normalizer: Divides every sum instead of what the normalizer says, such as the
                positives of all the micro-batches of a step: a number, (B,) numbers, one an image,
                or a mapping from the names of terms, such as the divisors of an output.
            matches: Which anchor is assigned to what in each image, such as those of `match`; by
                default the matcher says. Matches that are not sampled yet are.
            reduction: "sum", or "image" for losses (B,) that add up to those of the batch.

        Returns:
            Total, terms, divisors and matches.

        Raises:
            TypeError: If a tensor has the wrong type.
            ValueError: If something is missing or a shape does not fit; with `validate`, if a
                value is bad.
        """
        if reduction not in get_args(TermReduction):
            raise ValueError(f"reduction must be 'sum' or 'image', got {reduction!r}")
        inputs = self._inputs(predictions, targets, anchors, level_sizes)
        if matches is not None and len(matches) != inputs.images:
            raise ValueError(f"matches must be {inputs.images}, one an image, got {len(matches)}")
        if self.validate:
            self._validate(inputs, matches or [])

        matches = self._matches(inputs, matches)
        batch = MatchedBatch(inputs, matches, self.coder)
        rows = self._rows(batch)
        divided_by = self._divisors(rows, normalizer)
        losses = {
            name: term(batch, rows[name], divided_by[name], reduction)
            for name, term in self.terms.items()
        }
        if self.validate:
            validate_terms(losses)
        terms = {
            name: losses[name] * term.weight
            if term.weight
            else silenced(losses[name], inputs.predictions[term.reads])
            for name, term in self.terms.items()
        }
        total: Tensor | int = sum(terms.values())
        if not isinstance(total, Tensor):
            total = batch.positive.new_zeros((), dtype=torch.float32)
        return DetectorOutput(
            total=total,
            terms=terms,
            unweighted={name: loss.detach() for name, loss in losses.items()},
            divisors=divided_by,
            matches=matches,
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
        inputs = self._inputs(predictions, targets, anchors, level_sizes)
        if self.validate:
            self._validate(inputs, [])
        return self._matches(inputs, None)

    def _inputs(
        self,
        predictions: Mapping[str, Tensor] | None,
        targets: Sequence[Target],
        anchors: Tensor | Sequence[Tensor] | None,
        level_sizes: Sequence[int] | None,
    ) -> Inputs:
        """The batch, checked; without predictions where there are none."""

        def check(given: Mapping[str, Tensor]) -> None:
            for term in self.terms.values() if predictions is not None else ():
                term.check(given, self.coder.width)

        return checked_inputs(
            predictions or {},
            targets,
            anchors,
            level_sizes,
            needed=[] if predictions is None else self._needed,
            labels=self._needs_labels,
            check=check,
        )

    def _validate(self, inputs: Inputs, matches: Sequence[Matches]) -> None:
        """Looks at the values of what was given."""
        read = {
            name: inputs.predictions[term.reads]
            for name, term in self.terms.items()
            if term.reads in inputs.predictions
        }
        classes, term = None, self._classifier()
        if term is not None and not term.one_logit and term.reads in inputs.predictions:
            classes = term.classes(inputs.predictions)
        validate_inputs(inputs, classes, matches, read)

    def _classifier(self, over: str | None = None) -> LogitTerm | None:
        """The first term of classes, or else of a single logit; None where there is neither."""
        found = [
            term
            for term in self.terms.values()
            if isinstance(term, LogitTerm) and over in (None, term.over)
        ]
        return min(found, key=lambda term: term.one_logit, default=None)

    @torch.no_grad()
    def _matches(self, inputs: Inputs, given: Sequence[Matches] | None) -> list[Matches]:
        """The matches of each image, sampled."""
        matches = self._match(inputs) if given is None else list(given)
        if given is None and self.validate:
            validate_matches(inputs.targets, matches)
        if all(match.sampled for match in matches):
            return matches
        losses: Sequence[Tensor | None] = [None] * len(matches)
        if self.sampler.needs_class_loss:
            term = self._classifier(over="all")
            if term is None or term.reads not in inputs.predictions:
                raise ValueError(f"sampler {self.sampler.type_name} needs predictions, got None")
            losses = term.sampling_loss(MatchedBatch(inputs, matches, self.coder)).unbind()
        return [
            match if match.sampled else self.sampler(match, loss)
            for match, loss in zip(matches, losses, strict=True)
        ]

    def _match(self, inputs: Inputs) -> list[Matches]:
        """What the matcher says; predictions are decoded only for one that asks for them."""
        needs, predictions = self.matcher.needs, inputs.predictions
        if "level_sizes" in needs and inputs.level_sizes is None:
            raise ValueError(f"matcher {self.matcher.type_name} needs level_sizes, got None")
        if needs & {"class_logits", "pred_boxes", "objectness"} and not predictions:
            raise ValueError(f"matcher {self.matcher.type_name} needs predictions, got None")
        boxes = objectness = None
        if "pred_boxes" in needs:
            regression = predictions["box_regression"]
            anchors = torch.stack(list(inputs.anchors))
            boxes = self.coder.decode(regression, anchors)
        if "objectness" in needs:
            objectness = predictions["objectness"].flatten(1)
        return self.matcher.batch(
            inputs.anchors,
            [target["boxes"] for target in inputs.targets],
            gt_labels=[target["labels"] for target in inputs.targets]
            if all("labels" in target for target in inputs.targets)
            else None,
            gt_ignore=[target.get("ignore") for target in inputs.targets],
            level_sizes=inputs.level_sizes,
            class_logits=predictions["class_logits"] if "class_logits" in needs else None,
            pred_boxes=boxes,
            objectness=objectness,
        )

    def _rows(self, batch: MatchedBatch) -> dict[str, Rows]:
        """The rows of each term."""
        classifier = self._classifier()
        label = None if classifier is None else classifier.label
        return {name: Rows(term, batch, label) for name, term in self.terms.items()}

    @torch.no_grad()
    def _divisors(
        self,
        rows: Mapping[str, Rows],
        given: Tensor | float | Mapping[str, Tensor | float] | None,
    ) -> dict[str, Tensor]:
        """What the sum of each term is divided by; terms that share a count are counted once."""
        found: dict[str, Tensor] = {}
        if given is not None:
            values = given if isinstance(given, Mapping) else dict.fromkeys(rows, given)
            unknown = [name for name in values if name not in rows]
            if unknown:
                raise ValueError(
                    f"normalizer must name terms, {', '.join(rows)}, got {unknown[0]!r}"
                )
            found = {name: _given_divisor(name, values[name], rows[name]) for name in values}
        asked: dict[tuple[int, str | None], tuple[Normalizer, Rows]] = {}
        asks: dict[str, tuple[int, str | None]] = {}
        for name, of_term in rows.items():
            if name not in found:
                normalizer = self._normalizer_of(of_term.term)
                asks[name] = id(normalizer), name if normalizer.of_term else None
                asked.setdefault(asks[name], (normalizer, of_term))
        counted = dict(zip(asked, divisors(list(asked.values())), strict=True))
        return {name: found[name] if name in found else counted[asks[name]] for name in rows}


def needed_predictions(terms: Iterable[Term], matcher: Matcher) -> list[str]:
    """The predictions that terms read, then those that a quality or the matcher looks at."""
    terms = list(terms)
    names = [term.reads for term in terms]
    for term in terms:
        names += sorted(term.needs - {"score"})
    of_matcher = {
        "class_logits": "class_logits",
        "pred_boxes": "box_regression",
        "objectness": "objectness",
    }
    names += [of_matcher[name] for name in sorted(matcher.needs) if name in of_matcher]
    return list(dict.fromkeys(names))


def named_terms(terms: Sequence[Term]) -> dict[str, Term]:
    """The terms by name: their key, or key and name where they have one or the key has several.

    Raises:
        ValueError: If two have the same name.
    """
    keys = [term.type_name for term in terms]
    named: dict[str, Term] = {}
    for term in terms:
        name = term.type_name
        if term.name is not None or keys.count(name) > 1:
            name = f"{name}/{term.name or term.loss.type_name or type(term.loss).__name__}"
        if name in named:
            raise ValueError(
                f"terms must differ in name, got two {name!r}; give one of them a name"
            )
        named[name] = term
    return named


def check_parts(criterion: DetectorLoss) -> None:
    """Raises ValueError at the first parts that do not go together."""
    matcher, coder = criterion.matcher, criterion.coder
    unknown = matcher.needs - {
        "gt_labels",
        "level_sizes",
        "class_logits",
        "pred_boxes",
        "objectness",
    }
    if unknown:
        raise ValueError(
            f"matcher: {matcher.type_name} needs {', '.join(sorted(unknown))}, "
            "which a criterion does not have"
        )
    if criterion.sampler.needs_class_loss and criterion._classifier(over="all") is None:
        raise ValueError(
            f"sampler: {criterion.sampler.type_name} chooses by a classification loss over all "
            "anchors, which no term has"
        )
    for name, term in criterion.terms.items():
        space = getattr(term.loss, "space", None)
        if space is not None and space not in coder.spaces:
            raise ValueError(
                f"{name}: {term.loss.type_name} is a loss on {space}, coder {coder.type_name} has "
                f"{', '.join(sorted(coder.spaces))}"
            )
        classifier = criterion._classifier()
        looks_at_classes = any("class_logits" in quality.needs for quality in term.qualities)
        if looks_at_classes and classifier is not None and classifier.loss.background_columns:
            raise ValueError(
                f"{name}: a quality takes the class logits for yes-or-no answers, and "
                f"{classifier.loss.type_name} has classes that share one probability"
            )
        if "score" in term.needs and not matcher.scores:
            raise ValueError(
                f"{name}: a score comes from the matcher, and {matcher.type_name} gives none"
            )
        normalizer = criterion._normalizer_of(term)
        if normalizer.needs_factors and not term.has_factors:
            raise ValueError(
                f"{name}: normalizer {normalizer.type_name} divides by the factors of the rows, "
                "and the term has none; give it weigh_by"
            )


def silenced(loss: Tensor, prediction: Tensor) -> Tensor:
    """0 in the shape of `loss`, whatever that holds, with a zero gradient of `prediction`."""
    return torch.zeros_like(loss) + prediction.flatten()[:0].sum()


def _stands_alone(terms: Sequence[Term]) -> bool:
    """Whether a config writes the terms of a key as one mapping."""
    return len(terms) == 1 and terms[0].name is None


def _given_divisor(name: str, value: Tensor | float, rows: Rows) -> Tensor:
    """The divisor that the caller gives: 0-d, or one for each image or pyramid level."""
    positive = rows.positive
    if not isinstance(value, Tensor):
        if not 0 < value < math.inf:
            raise ValueError(f"normalizer of {name!r} must be a finite number > 0, got {value}")
        return torch.full((), float(value), dtype=rows.dtype, device=positive.device)
    expected = len(rows.level_sizes) if rows.term.divides_levels else rows.images
    if value.ndim and value.shape != (expected,):
        raise ValueError(
            f"normalizer of {name!r} must be a number or have shape ({expected},), "
            f"got {tuple(value.shape)}"
        )
    return value.to(positive.device, rows.dtype)
