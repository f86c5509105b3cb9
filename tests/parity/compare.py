"""A criterion and a golden file, side by side."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import detloss
from detloss.matchers import Matches

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
    """

    config: str
    shown: Mapping[str, Any]
    convention: Mapping[str, Any]
    terms: Mapping[str, float]
    gradients: Mapping[str, float]
    differing: int | None

    @property
    def equal(self) -> bool:
        """Whether every figure is within `LIMIT`, which NaN is not, and every anchor's match is."""
        figures = [*self.terms.values(), *self.gradients.values()]
        return all(figure <= LIMIT for figure in figures) and not self.differing


def compare(golden: Golden, original: Original, *, configs: Path = CONFIGS) -> Comparison:
    """Feeds the shipped config what the original was fed, and measures the differences.

    Raises:
        ValueError: If the file has not what the entry asks for, or the entry leaves out a
            prediction or a loss of the file or a term of the criterion.
    """
    config = detloss.load_config(configs / f"{original.config}.yaml").config()
    for path, value in original.convention.items():
        part, option = _place(config, path)
        part[option] = value
    criterion = detloss.build(config)
    leaves = golden.starting_with("pred_")
    _check_complete("predictions", leaves, original.predictions.values())
    for leaf in leaves.values():
        leaf.requires_grad_()
    output = criterion(
        {name: leaves[source] for name, source in original.predictions.items()},
        golden.targets(),
        anchors=original.anchors(golden),
        level_sizes=golden.level_sizes(),
        matches=golden.matches() if original.given else None,
    )
    output.total.backward()

    _check_complete("terms", output.terms, original.terms)
    ours = dict.fromkeys(original.terms.values(), 0.0) | {"total": output.total.item()}
    for name, source in original.terms.items():
        ours[source] += output.terms[name].item()
    theirs = golden.losses()
    _check_complete("losses", theirs, ours)
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
        differing=None if original.given else _differing(output.matches, golden.matched()),
    )


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of two tensors, relative to the largest absolute value of `theirs`.

    0 where they are equal, inf where only `theirs` is all 0, NaN where one has a NaN.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"shapes must agree, got {tuple(ours.shape)} and {tuple(theirs.shape)}")
    difference = (ours.double() - theirs.double()).abs().max()
    return 0.0 if difference == 0 else (difference / theirs.double().abs().max()).item()


def _differing(ours: Iterable[Matches], theirs: Iterable[Tensor]) -> int:
    """Anchors that are matched otherwise; `theirs` as in `Golden.matched`."""
    differing = 0
    for match, matched in zip(ours, theirs, strict=True):
        index = torch.where(match.positive, match.target_index, -1)
        differing += int((index.where(~match.ignored, -2) != matched).sum())
    return differing


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
