"""A criterion and a golden file, side by side."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import detloss
from detloss.matchers import Matches

from .chance import Call, Chance
from .golden import Golden
from .originals import Original

CONFIGS = Path(__file__).parents[2] / "configs"
LIMIT = 1e-5
"""The largest relative difference that counts as equal."""


@dataclass(frozen=True)
class Comparison:
    """How far a criterion is from an original.

    Attributes:
        config: Name of the config.
        shown: Key path -> value of options of the config that only this original has.
        convention: Key path -> value of what was changed in the config for this original.
        terms: Relative difference of each of the original's terms, and of their "total".
        gradients: Of the total for each prediction: the largest difference, relative to the
            original gradient's largest absolute value.
        differing: Anchors of all images that are matched otherwise; None where matches were given.
        reason: Why matches may differ from the original's, with which the losses are then computed;
            "" where none differ, or one does for no such reason.
    """

    config: str
    shown: Mapping[str, Any]
    convention: Mapping[str, Any]
    terms: Mapping[str, float]
    gradients: Mapping[str, float]
    differing: int | None
    reason: str = ""

    @property
    def equal(self) -> bool:
        """Whether every figure is within `LIMIT`, which NaN is not, and every anchor's match is."""
        figures = [*self.terms.values(), *self.gradients.values()]
        matches = not self.differing or bool(self.reason)
        return all(figure <= LIMIT for figure in figures) and matches


def compare(golden: Golden, original: Original, *, configs: Path = CONFIGS) -> Comparison:
    """Feeds the shipped config what the original was fed, and measures the differences.

    Where only such anchors are matched otherwise whose match the original leaves to chance, the
    losses are compared with its matches.

    Raises:
        ValueError: If the file has not what the entry asks for, or the entry leaves out a
            prediction or a loss of the file or a term of the criterion.
    """
    found = _compare(golden, original, configs)
    if not found.reason:
        return found
    again = _compare(golden, replace(original, given=True), configs)
    return replace(again, differing=found.differing, reason=found.reason)


def _compare(golden: Golden, original: Original, configs: Path) -> Comparison:
    config = detloss.load_config(configs / f"{original.config}.yaml").config()
    for path, value in original.convention.items():
        part, option = _place(config, path)
        part[option] = value
    criterion = detloss.build(config)
    leaves = {
        name: leaf.detach().requires_grad_() for name, leaf in golden.starting_with("pred_").items()
    }
    read = _Read(leaves)
    predictions = {name: made(read) for name, made in original.made().items()}
    _check_complete("predictions", leaves, read.names)
    sets = original.sets
    given: Any = None
    if original.given:
        given = {name: golden.matches(prefix) for name, prefix in (sets or {"": ""}).items()}
        given = given if sets else given[""]
    anchors = original.anchors(golden)
    if original.given and golden.has_pairs:
        regression = predictions["box_regression"].detach()
        given = golden.with_pairs(
            given, criterion.coder.decode(regression, anchors.expand_as(regression))
        )
    targets = golden.targets()
    of_sets = _of_sets(predictions)
    output = criterion(
        of_sets if sets else predictions,
        targets,
        anchors=anchors,
        level_sizes=golden.level_sizes(),
        matches=given,
        **original.call(golden),
    )
    output.total.backward()

    _check_complete("terms", output.terms, original.terms)
    ours = dict.fromkeys(original.terms.values(), 0.0) | {"total": output.total.item()}
    for name, source in original.terms.items():
        factor = original.factors.get(source, 1) * (golden.images if original.of_an_image else 1)
        ours[source] += output.terms[name].item() / factor
    theirs = {name: loss for name, loss in golden.losses().items() if name not in original.beside}
    _check_complete("losses", theirs, ours)
    found = output.matches if sets else {"": output.matches}
    differing = {
        name: _differing(matches, golden.matched(sets.get(name, "")), original.sampled)
        for name, matches in found.items()
    }
    calls = {
        name: Call(
            criterion.layers[name].criterion if sets else criterion, of_set, targets, anchors
        )
        for name, of_set in (of_sets if sets else {"": predictions}).items()
    }
    return Comparison(
        config=original.config,
        shown={path: _value(config, path) for path in original.shown},
        convention=original.convention,
        terms={
            name: relative_difference(_tensor(loss), theirs[name]) for name, loss in ours.items()
        },
        gradients={
            name: relative_difference(_gradient(leaf), golden[f"grad_{name}"])
            for name, leaf in leaves.items()
        },
        differing=None if original.given else sum(int(of.sum()) for of in differing.values()),
        reason=_reason(original.chance, calls, differing),
    )


def _reason(
    chance: Chance | None, calls: Mapping[str, Call], differing: Mapping[str, Tensor]
) -> str:
    """Why anchors may be matched otherwise; "" where none are, or some have no reason.

    Args:
        chance: What the original leaves to chance.
        calls: Set of predictions -> what its criterion is called with.
        differing: Set of predictions -> (B, A) the anchors that are matched otherwise.
    """
    some = {name: anchors for name, anchors in differing.items() if anchors.any()}
    if chance is None or not some:
        return ""
    found = all(chance.anchors(calls[name])[anchors].all() for name, anchors in some.items())
    return chance.reason if found else ""


class _Read(dict[str, Tensor]):
    """The arrays of a file, and which of them were read."""

    def __init__(self, arrays: Mapping[str, Tensor]) -> None:
        super().__init__(arrays)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self:
            raise ValueError(f"the file must have a prediction {name!r}, got {sorted(self)}")
        self.names.add(name)
        return super().__getitem__(name)


def _of_sets(predictions: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Predictions called "set/name" as a mapping set -> name -> prediction."""
    sets: dict[str, dict[str, Tensor]] = {}
    for path, value in predictions.items():
        name, _, prediction = path.partition("/")
        sets.setdefault(name, {})[prediction] = value
    return sets


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of two tensors, relative to the largest absolute value of `theirs`.

    0 where they are equal, inf where only `theirs` is all 0, NaN where one has a NaN.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"shapes must agree, got {tuple(ours.shape)} and {tuple(theirs.shape)}")
    difference = (ours.double() - theirs.double()).abs().max()
    return 0.0 if difference == 0 else (difference / theirs.double().abs().max()).item()


def _differing(ours: Iterable[Matches], theirs: Iterable[Tensor], sampled: bool) -> Tensor:
    """(B, A) the anchors that are matched otherwise.

    Args:
        ours: Matches of each image.
        theirs: As in `Golden.matched`.
        sampled: Whether only ours are sampled, so that background may be left out in them.
    """
    differing = []
    for match, matched in zip(ours, theirs, strict=True):
        index = torch.where(match.positive, match.target_index, -1)
        left_out = match.ignored & (not sampled)
        differing.append(index.where(~left_out, -2) != matched)
    return torch.stack(differing)


def _check_complete(kind: str, found: Iterable[str], listed: Iterable[str]) -> None:
    if set(found) != set(listed):
        raise ValueError(f"{kind} must be {sorted(set(listed))}, got {sorted(set(found))}")


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _tensor(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _place(config: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """The part that an option such as "box.normalizer.floor" belongs to, and the option's name."""
    *outer, option = path.split(".")
    part = reduce(lambda part, key: part.get(key, {}), outer, config)
    if option not in part:
        raise ValueError(f"the config must have {path!r}, which its original's entry names")
    return part, option


def _value(config: dict[str, Any], path: str) -> Any:
    part, option = _place(config, path)
    return part[option]
