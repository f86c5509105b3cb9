"""The parts of a criterion: what its terms are called, what all look at, which go together."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from detloss.coders import Coder
from detloss.matchers import Matcher
from detloss.normalizers import Normalizer
from detloss.registry import CODERS, MATCHERS, SAMPLERS, Registry
from detloss.samplers import Sampler
from detloss.terms import BoxTerm, LogitTerm, Term

OF_MATCHER = {
    "class_logits": "class_logits",
    "pred_boxes": "box_regression",
    "objectness": "objectness",
}
"""What a matcher may ask for (`Matcher.needs`) and the prediction that it is made of."""


def named_terms(terms: Sequence[Term]) -> dict[str, Term]:
    """The terms by name, in order.

    A term is called by its key, such as "box". Where it has a name, or its key has several terms,
    it is called by both, such as "box/giou"; the type of its loss stands in for a missing name.

    Raises:
        TypeError: If they are no list of terms.
        ValueError: If two have the same name.

    Example:
        >>> from detloss.regression import GIoULoss, L1Loss
        >>> from detloss.terms import BoxTerm
        >>> list(named_terms([BoxTerm(GIoULoss())]))
        ['box']
        >>> list(named_terms([BoxTerm(GIoULoss()), BoxTerm(L1Loss(), name="coordinates")]))
        ['box/giou', 'box/coordinates']
    """
    if not isinstance(terms, Sequence):
        raise TypeError(f"terms must be a list of terms, got {type(terms).__name__}")
    for place, term in enumerate(terms):
        if not isinstance(term, Term):
            raise TypeError(f"terms[{place}] must be a Term, got {type(term).__name__}")
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


def by_key(terms: Iterable[Term]) -> dict[str, Any]:
    """What a config says of the terms: key -> the mapping of its term, or a list of mappings.

    Example:
        >>> from detloss.regression import L1Loss
        >>> from detloss.terms import BoxTerm
        >>> by_key([BoxTerm(L1Loss(), weight=2.0)])
        {'box': {'type': 'l1', 'weight': 2.0}}
    """
    of_key: dict[str, list[Term]] = {}
    for term in terms:
        of_key.setdefault(term.type_name, []).append(term)
    return {
        key: of_one[0].config()
        if len(of_one) == 1 and of_one[0].name is None
        else [term.config() for term in of_one]
        for key, of_one in of_key.items()
    }


def needed_predictions(terms: Iterable[Term], matcher: Matcher) -> list[str]:
    """The predictions that terms read, then those that a quality or the matcher looks at.

    Example:
        >>> import detloss
        >>> criterion = detloss.build(
        ...     {"matcher": {"type": "max_iou"}, "objectness": {"type": "sigmoid_focal"}}
        ... )
        >>> needed_predictions(criterion.terms.values(), criterion.matcher)
        ['objectness']
    """
    terms = list(terms)
    names = [term.reads for term in terms]
    for term in terms:
        names += sorted(term.needs - {"score"})
    names += [OF_MATCHER[name] for name in sorted(matcher.needs) if name in OF_MATCHER]
    return list(dict.fromkeys(names))


def needs_labels(terms: Iterable[Term], matcher: Matcher) -> bool:
    """Whether a target must have "labels": where a term or the matcher looks at classes."""
    of_classes = any(isinstance(term, LogitTerm) and not term.one_logit for term in terms)
    return of_classes or "gt_labels" in matcher.needs


def classifier_of(terms: Iterable[Term], over: str | None = None) -> LogitTerm | None:
    """The first term of classes, or else of a single logit; None where there is neither.

    Args:
        terms: The terms of a criterion, in order.
        over: Only terms over these anchors, "all" or "positives"; None for whichever.
    """
    found = [term for term in terms if isinstance(term, LogitTerm) and over in (None, term.over)]
    first = [term for term in found if not term.one_logit] or found
    return first[0] if first else None


def terms_of_matching(terms: Iterable[Term]) -> list[BoxTerm | LogitTerm]:
    """The terms of classes and of boxes, by whose losses a matcher may choose."""
    return [
        term
        for term in terms
        if isinstance(term, BoxTerm) or (isinstance(term, LogitTerm) and not term.one_logit)
    ]


def check_parts(
    terms: Mapping[str, Term],
    matcher: Matcher,
    coder: Coder,
    sampler: Sampler,
    normalizer: Normalizer,
) -> None:
    """Raises ValueError where parts do not go together, with a line for each mistake.

    Raises:
        TypeError: If a part is of another kind.
    """
    for role, part, kind in (
        ("matcher", matcher, Matcher),
        ("coder", coder, Coder),
        ("sampler", sampler, Sampler),
        ("normalizer", normalizer, Normalizer),
    ):
        if not isinstance(part, kind):
            got = f"the class {part.__name__}" if isinstance(part, type) else type(part).__name__
            raise TypeError(f"{role} must be a {kind.__name__}, got {got}")
    classifier = classifier_of(terms.values())
    mistakes = [*_mistakes_of_matching(matcher, sampler, terms)]
    for name, term in terms.items():
        found = [
            *_mistakes_of_space(term, coder),
            *_mistakes_of_qualities(term, matcher, classifier),
            *_mistakes_of_division(term, term.normalizer or normalizer),
        ]
        mistakes += [f"{name}: {mistake}" for mistake in found]
    if mistakes:
        raise ValueError("\n".join(mistakes))


def _mistakes_of_matching(
    matcher: Matcher, sampler: Sampler, terms: Mapping[str, Term]
) -> Iterator[str]:
    unknown = matcher.needs - {"gt_labels", "level_sizes", "losses", *OF_MATCHER}
    if unknown:
        yield (
            f"matcher: {matcher.type_name} needs {', '.join(sorted(unknown))}, "
            "which a criterion does not have"
        )
    if "losses" in matcher.needs and not terms_of_matching(terms.values()):
        yield f"matcher: {matcher.type_name} looks at losses of classes or boxes; no term has one"
    if sampler.needs_class_loss and classifier_of(terms.values(), over="all") is None:
        others = _names(SAMPLERS, "needs_class_loss", without=True)
        yield (
            f"sampler: {sampler.type_name} chooses by a classification loss over all anchors, "
            f"which no term has; samplers that need none: {others}"
        )


def _mistakes_of_space(term: Term, coder: Coder) -> Iterator[str]:
    space = getattr(term, "compares", None)
    if space is not None and space not in coder.spaces:
        fit = [name for name in CODERS.names() if space in getattr(CODERS[name], "spaces", ())]
        yield (
            f"{term.loss.type_name} is a loss on {space}, coder {coder.type_name} has "
            f"{', '.join(sorted(coder.spaces))}; coders with {space}: {', '.join(fit) or 'none'}"
        )


def _mistakes_of_qualities(
    term: Term, matcher: Matcher, classifier: LogitTerm | None
) -> Iterator[str]:
    looks_at_classes = any("class_logits" in quality.needs for quality in term.qualities)
    if looks_at_classes and classifier is not None and classifier.loss.background_columns:
        yield (
            "a quality takes the class logits for yes-or-no answers, and "
            f"{classifier.loss.type_name} has classes that share one probability"
        )
    if "score" in term.needs and not matcher.scores:
        yield (
            f"a score comes from the matcher, and {matcher.type_name} has none; matchers with "
            f"scores: {_names(MATCHERS, 'scores') or 'none'}"
        )


def _mistakes_of_division(term: Term, normalizer: Normalizer) -> Iterator[str]:
    if normalizer.needs_factors and not term.has_factors:
        cure = "give it weigh_by" if term.over == "positives" else "give it another normalizer"
        yield (
            f"normalizer {normalizer.type_name} divides by the factors of the rows, and the term "
            f"has none; {cure}"
        )


def _names(registry: Registry, flag: str, *, without: bool = False) -> str:
    """The registered names of the classes with that flag, or of those without it."""
    names = registry.names()
    return ", ".join(name for name in names if bool(getattr(registry[name], flag)) != without)
