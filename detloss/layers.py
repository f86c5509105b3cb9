"""LayeredLoss: a criterion for each set of predictions of a network, such as heads or layers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from detloss.detector import DetectorLoss, DetectorOutput, LossOutput, Matched
from detloss.division import Given, divisors_of_terms
from detloss.inputs import ImageSize, Target
from detloss.matchers import Matches
from detloss.normalizers import Normalizer
from detloss.options import check_fraction
from detloss.registry import Part, nearest
from detloss.terms import Rows, Term
from detloss.terms.base import TermReduction

OWN, GIVEN = "own", "given"
"""Where the matches of a set come from, unless from another set."""
Predictions = Mapping[str, Tensor]


class Schedule(NamedTuple):
    """A weight that goes in a straight line from `start`, at progress 0, to `end`, at 1."""

    start: float
    end: float

    def at(self, progress: float) -> float:
        """The weight at that progress."""
        return self.start + (self.end - self.start) * progress


class Layer(Part):
    """One set of predictions, and its loss.

    Args:
        criterion: The loss of the set.
        weight: Factor of all its terms, >= 0, or a `Schedule` of such.
        matches: "own" for those of the criterion's matcher, "given" for those of the call, or the
            name of the set whose matches it takes, with their scores.
        class_agnostic: Whether every object has label 0.

    Raises:
        ValueError: If a weight is no finite number >= 0.

    Example:
        >>> import detloss
        >>> Layer(detloss.load_config("retinanet"), weight=Schedule(0.8, 0.1)).weight.at(0.5)
        0.45
    """

    criterion: DetectorLoss

    def __init__(
        self,
        criterion: DetectorLoss,
        *,
        weight: float | Schedule = 1.0,
        matches: str = OWN,
        class_agnostic: bool = False,
    ) -> None:
        super().__init__()
        for value in weight if isinstance(weight, Schedule) else (weight,):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value < math.inf:
                raise ValueError(f"weight must be a finite number >= 0, got {value!r}")
        self.criterion = criterion
        self.weight = weight
        self.matches = matches
        self.class_agnostic = class_agnostic

    def config(self) -> dict[str, Any]:
        """The resolved config of the set; it names no matcher where it takes another set's."""
        weight, criterion = self.weight, self.criterion.config()
        if self.matches not in (OWN, GIVEN):
            del criterion["matcher"]
        return {
            "weight": weight._asdict() if isinstance(weight, Schedule) else weight,
            "matches": self.matches,
            "class_agnostic": self.class_agnostic,
            **criterion,
        }

    def extra_repr(self) -> str:
        return (
            f"weight={self.weight}, matches={self.matches!r}, class_agnostic={self.class_agnostic}"
        )


@dataclass(frozen=True, repr=False)
class LayeredOutput(LossOutput):
    """The loss of a batch, by set and term, and what it was computed from.

    Attributes: See `LossOutput`; a term is called "set/term". Where a set is a list of predictions
        its losses are added, and it has a divisor for each, "set/0/term", "set/1/term" ...
        matches: Set -> its matches of each image, or a list of such.
    """

    matches: dict[str, Any]


class LayeredLoss(nn.Module):
    """The loss of a network that predicts several times: two heads, or the layers of a decoder.

    Each set of predictions has a criterion, a weight, and matches: its own, those of another set,
    or given ones. A term is called "set/term". What the terms of all sets are divided by is counted
    together, with one exchange between the ranks of a distributed run.

    Args:
        layers: Name of the set -> its loss.

    Raises:
        ValueError: If there is no set, a name is bad, or a set takes matches of none or of itself.

    Example:
        >>> import detloss
        >>> criterion = detloss.build({
        ...     "matcher": {"type": "max_iou"},
        ...     "classification": {"type": "sigmoid_focal"},
        ...     "layers": {"early": {"weight": {"start": 1.0, "end": 0.0}}, "last": {}},
        ... })
        >>> anchors = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
        >>> output = criterion(
        ...     {name: {"class_logits": torch.zeros(1, 2, 3)} for name in ("early", "last")},
        ...     [{"boxes": anchors[:1], "labels": torch.tensor([2])}],
        ...     anchors=anchors,
        ...     progress=0.5,
        ... )
        >>> output.terms
        {'early/classification': tensor(0.3466), 'last/classification': tensor(0.6931)}
    """

    __jit_ignored_attributes__ = ("layers", "terms")
    layers: Mapping[str, Layer]

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        super().__init__()
        self._order = _matching_order(layers)
        self.layers = nn.ModuleDict(dict(layers))  # type: ignore[assignment]

    @property
    def terms(self) -> dict[str, Term]:
        """Each term by its name, "set/term"."""
        return {
            f"{name}/{term}": found
            for name, layer in self.layers.items()
            for term, found in layer.criterion.terms.items()
        }

    def config(self) -> dict[str, Any]:
        """The resolved config; `detloss.build` makes an equal criterion of it."""
        return {"layers": {name: layer.config() for name, layer in self.layers.items()}}

    @torch.jit.unused
    def forward(
        self,
        predictions: Mapping[str, Predictions | Sequence[Predictions]],
        targets: Sequence[Target],
        *,
        anchors: Tensor | Sequence[Tensor] | Mapping[str, Any] | None = None,
        level_sizes: Sequence[int] | None = None,
        image_size: ImageSize | None = None,
        normalizer: Given | Mapping[str, Given] | None = None,
        matches: Mapping[str, Any] | None = None,
        reduction: TermReduction = "sum",
        progress: float | None = None,
    ) -> LayeredOutput:
        """The loss of a batch of B images.

        Args:
            predictions: Set -> what `DetectorLoss` takes, or a list of such. The terms of a set
                that is missing are 0.
            targets: See `DetectorLoss`.
            anchors: See `DetectorLoss`; or set -> such.
            level_sizes: See `DetectorLoss`.
            image_size: See `DetectorLoss`.
            normalizer: A divisor of every term, or name of a term -> divisor, as
                `LayeredOutput.divisors` has them.
            matches: Set -> the matches of each image, in place of its own; a list of such for a set
                that is a list of predictions.
            reduction: "sum", or "image" for losses (B,) that add up to those of the batch.
            progress: How much of the training is over, in [0, 1]; needed by a `Schedule`.

        Returns:
            Total, terms, divisors and matches.

        Raises:
            TypeError: If something has the wrong type.
            ValueError: If something is missing or unknown, or a shape does not fit.
        """
        weights = self._weights(progress)
        given = {} if matches is None else matches
        of_sets = anchors if isinstance(anchors, Mapping) else dict.fromkeys(self.layers, anchors)
        for name, value in (("predictions", predictions), ("matches", given), ("anchors", of_sets)):
            self._check_sets(name, value)

        matched: dict[str, Matched] = {}
        for name in self._order:
            call = (targets, of_sets.get(name), level_sizes, image_size)
            for place, of_place in _listed(name, predictions.get(name, [])).items():
                matched[place] = self._match(place, of_place, *call, given, matched)
        divided_by = self._divisors(matched, normalizer)
        for place, one in matched.items():
            self.layers[_set_of(place)].criterion.observe(one, _of_place(place, one, divided_by))
        if normalizer is None:
            self.move()
        outputs = {
            place: self._sum(place, one, divided_by, reduction, weights)
            for place, one in matched.items()
        }
        zero = _zero(targets, reduction)
        terms, unweighted = dict.fromkeys(self.terms, zero), dict.fromkeys(self.terms, zero)
        for place, output in outputs.items():
            for term in output.terms:
                name = f"{_set_of(place)}/{term}"
                terms[name] = terms[name] + output.terms[term]
                unweighted[name] = unweighted[name] + output.unweighted[term]
        found = {place: output.matches for place, output in outputs.items()}
        return LayeredOutput(
            total=sum(terms.values(), zero),
            terms=terms,
            unweighted=unweighted,
            divisors=divided_by,
            matches={name: _nested(name, found) for name in self.layers if name in predictions},
        )

    def move(self) -> None:
        """See `DetectorLoss.move`: of all sets, whose lists of predictions share a memory."""
        for layer in self.layers.values():
            layer.criterion.move()

    def _sum(
        self,
        place: str,
        matched: Matched,
        divided_by: Mapping[str, Tensor],
        reduction: TermReduction,
        weights: Mapping[str, float],
    ) -> DetectorOutput:
        """The loss of one set, or of one entry of a list."""
        name, divisors = _set_of(place), _of_place(place, matched, divided_by)
        return self.layers[name].criterion.summed(matched, divisors, reduction, weights[name])

    def _divisors(
        self, matched: Mapping[str, Matched], given: Given | Mapping[str, Given] | None
    ) -> dict[str, Tensor]:
        """What each term of each set is divided by, all counted together."""
        rows: dict[str, Rows] = {}
        normalizers: dict[str, Normalizer] = {}
        for place, one in matched.items():
            of_terms = self.layers[_set_of(place)].criterion.normalizers()
            rows.update({f"{place}/{term}": found for term, found in one.rows.items()})
            normalizers.update({f"{place}/{term}": found for term, found in of_terms.items()})
        return divisors_of_terms(rows, normalizers, given)

    def _match(
        self,
        place: str,
        predictions: Predictions,
        targets: Sequence[Target],
        anchors: Tensor | Sequence[Tensor] | None,
        level_sizes: Sequence[int] | None,
        image_size: ImageSize | None,
        given: Mapping[str, Any],
        matched: Mapping[str, Matched],
    ) -> Matched:
        """The matched batch of one set, or of one entry of a list."""
        name = _set_of(place)
        layer, matches = self.layers[name], None
        if name in given:
            matches = _listed(name, given[name]).get(place)
            if matches is None:
                raise ValueError(f"matches must have {place!r} like the predictions, got none")
        elif layer.matches == GIVEN:
            raise ValueError(f"matches must be given for {name!r}, got none")
        elif layer.matches != OWN:
            matches = self._matches_of(layer.matches, place, matched)
        if layer.class_agnostic:
            targets = _of_one_class(targets)
        try:
            return layer.criterion.matched(
                predictions, targets, anchors, level_sizes, image_size, matches
            )
        except (TypeError, ValueError) as error:
            raise type(error)(f"{place}: {error}") from error

    def _matches_of(
        self, other: str, place: str, matched: Mapping[str, Matched]
    ) -> Sequence[Matches]:
        """The matches that an entry takes from another set: of all, or of the same place there."""
        for source in (other, place.replace(_set_of(place), other, 1)):
            if source in matched:
                return matched[source].batch.matches
        raise ValueError(f"predictions must have {other!r}, whose matches {place!r} takes")

    def _weights(self, progress: float | None) -> dict[str, float]:
        """The weight of each set."""
        weights = {}
        for name, layer in self.layers.items():
            weight = layer.weight
            if isinstance(weight, Schedule):
                if progress is None:
                    raise ValueError(
                        f"progress must be given, in [0, 1], since the weight of {name!r} has a "
                        "schedule, got None"
                    )
                weight = weight.at(progress)
            weights[name] = weight
        if progress is not None:
            check_fraction("progress", progress)
        return weights

    def _check_sets(self, argument: str, given: object) -> None:
        """Raises unless `given` is a mapping from sets of predictions."""
        names = ", ".join(list(self.layers))
        if not isinstance(given, Mapping):
            raise TypeError(
                f"{argument} must be a mapping from sets of predictions, {names}, "
                f"got {type(given).__name__}"
            )
        for name in given:
            if name not in self.layers:
                raise ValueError(
                    f"{argument} must name sets of predictions, {names}, got {name!r}"
                    f"{nearest(name, list(self.layers))}"
                )


def _matching_order(layers: Mapping[str, Layer]) -> list[str]:
    """The sets in an order in which each comes after the one whose matches it takes."""
    if not layers:
        raise ValueError("layers must have a set of predictions, got none")
    order: list[str] = []
    for name, layer in layers.items():
        if not name or set(name) & set("./") or name in (OWN, GIVEN):
            raise ValueError(
                f"a set must have a name without '.' and '/', other than {OWN!r} and {GIVEN!r}, "
                f"got {name!r}"
            )
        accepted = [OWN, GIVEN, *(other for other in layers if other != name)]
        if layer.matches not in accepted:
            raise ValueError(
                f"matches of {name!r} must be one of {', '.join(accepted)}, got {layer.matches!r}"
                f"{nearest(layer.matches, accepted)}"
            )
    while len(order) < len(layers):
        ready = [
            name
            for name, layer in layers.items()
            if name not in order and layer.matches in (OWN, GIVEN, *order)
        ]
        if not ready:
            stuck = [name for name in layers if name not in order]
            raise ValueError(f"sets must not take each other's matches, got {', '.join(stuck)}")
        order += ready
    return order


def _listed(name: str, value: Any) -> dict[str, Any]:
    """The entries of a set: "set" alone, or "set/0", "set/1" ... of a list of predictions.

    The matches of one entry are themselves a list, of `Matches`.
    """
    if isinstance(value, Mapping) or (value and isinstance(value[0], Matches)):
        return {name: value}
    return {f"{name}/{index}": one for index, one in enumerate(value)}


def _nested(name: str, of_places: Mapping[str, Sequence[Matches]]) -> Any:
    """What `_listed` took apart."""
    if name in of_places:
        return list(of_places[name])
    return [list(value) for place, value in of_places.items() if _set_of(place) == name]


def _of_place(place: str, matched: Matched, divided_by: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What divides each term there."""
    return {term: divided_by[f"{place}/{term}"] for term in matched.rows}


def _set_of(place: str) -> str:
    return place.partition("/")[0]


def _of_one_class(targets: Sequence[Target]) -> list[Target]:
    """The targets with label 0 for each object; one tensor of zeros serves all images."""
    labelled = [target["labels"] for target in targets if "labels" in target]
    if not labelled:
        return list(targets)
    zeros = labelled[0].new_zeros(sum(map(len, labelled)))
    return [
        {**target, "labels": zeros[: len(target["labels"])]} if "labels" in target else target
        for target in targets
    ]


def _zero(targets: Sequence[Target], reduction: TermReduction) -> Tensor:
    """A loss of 0: 0-d, or (B,) for "image"."""
    shape = () if reduction == "sum" else (len(targets),)
    like = targets[0]["boxes"] if targets else torch.empty(0)
    return like.new_zeros(shape, dtype=torch.float32)
