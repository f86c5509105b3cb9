"""Tries every registered loss on the boxes and the logits that break losses.

    python -m tests.fuzz --cases 1000000 --seed 0

A case is one row, a pair of boxes or the logits of an anchor, under one loss in one dtype. A row is
of a kind, such as a zero-width box that touches an inverted one, and otherwise random. The exit
status is 0 only without failures; a failure says which loss, which row and what was wrong with it.
"""

import argparse
import itertools
import math
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import detloss
from detloss.boxes.lengths import Lengths
from detloss.coders import DeltaCoder
from detloss.docstrings import range_of
from detloss.kernels import Loss, plain_formulas
from detloss.registry import (
    CLASSIFICATION,
    REGRESSION,
    SECTIONS,
    AtLeastMinusOne,
    Fraction,
    NonNegative,
    choices_of,
)
from detloss.regression import BoxLoss

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
CLASSES = 4
BINS = 5
ROWS = 256
"""Rows in a batch."""

NUMBERS = (
    (Fraction, (0.0, 0.25, 1.0)),
    (NonNegative, (0.0, 0.25, 0.5, 1.0, 2.0, 5.0)),
    (AtLeastMinusOne, (-1.0, -0.5, 0.0, 2.0)),
)
"""The numbers that are tried of an option, by its annotation; others keep their default."""
NUMBERS_OF = {"label_smoothing": [0.0, 0.1], "tolerance": [None, 0.5]}
"""The same by the name of the option, where all of its range would try the last bit."""
PER_CLASS = [0.1, 0.4, 0.7, 1.0]
MOST_VARIANTS = 40
"""Combinations of options that are tried of a loss, all of them."""
OF_EVERY_LOSS = {"class_weight", "ignore_index", "reduction"}
"""Options with tests of their own."""
AT_GAMMA_0 = {
    "sigmoid_focal": ("balanced_cross_entropy", "alpha"),
    "softmax_focal": ("softmax_cross_entropy", "class_weight"),
}
"""What a focal loss is at gamma 0, and the name that its alpha has there."""

# --- Rows -----------------------------------------------------------------------------------------

Kind = tuple[str, ...]

UNITS = {"fractions": 1.0, "640 px": 640.0, "10,000 px": 10_000.0}
SHAPES = {
    # factors of width and height, negative where inverted, and the size if it is not random
    "ordinary": (1.0, 1.0, 0.0),
    "thin": (1.0, 1e-4, 0.0),
    "zero width": (0.0, 1.0, 0.0),
    "zero height": (1.0, 0.0, 0.0),
    "zero area": (0.0, 0.0, 0.0),
    "inverted": (-1.0, -1.0, 0.0),
    "inverted in x": (-1.0, 1.0, 0.0),
    "inverted in y": (1.0, -1.0, 0.0),
    "1e-6-sized": (1.0, 1.0, 1e-6),
    "1e5-sized": (1.0, 1.0, 1e5),
}
RELATIONS = {
    # where a prediction of some size begins, for a target (low, high) and random shares of 1
    "identical to": lambda low, high, size, share, unit: low,
    "sharing a corner with": lambda low, high, size, share, unit: low,
    "touching": lambda low, high, size, share, unit: torch.stack([high[:, 0], low[:, 1]], 1),
    "corner to corner with": lambda low, high, size, share, unit: high,
    "nested with": lambda low, high, size, share, unit: low + share * (high - low - size),
    "overlapping": lambda low, high, size, share, unit: low - size + share * (high - low + size),
    "disjoint from": lambda low, high, size, share, unit: high + (share + 0.01) * unit,
    "far outside the image of": lambda low, high, size, share, unit: (200 * share - 100) * unit,
}
LOGITS = {"0": 0.0, "1e-30": 1e-30, "1": 1.0, "20": 20.0, "100": 100.0, "1e4": 1e4, "range": 1e999}
INDICES = ("foreground", "background", "ignored")
SHARES = ("one class", "soft labels", "no class")

PLACES = {
    # where a distance lies: as a share of all bins, and whether on a whole bin
    "in a bin": (1.0, True),
    "between two bins": (1.0, False),
    "in the first bin": (0.0, True),
    "below the first bin": (-3.0, False),
    "above the last bin": (1e4, False),
}

BOX_KINDS = list(itertools.product(SHAPES, RELATIONS, SHAPES, UNITS))
INDEX_KINDS = list(itertools.product(LOGITS, LOGITS, INDICES))
SHARE_KINDS = list(itertools.product(LOGITS, LOGITS, SHARES))
BIN_KINDS = list(itertools.product(LOGITS, LOGITS, PLACES))


def box_pairs(kinds: Sequence[Kind], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A pair of boxes of each of `BOX_KINDS`, (N, 4) and (N, 4) in float64.

    An inverted box is an upright one with its corners exchanged, identical or not.
    """

    def shares() -> Tensor:
        return torch.rand(len(kinds), 2, generator=generator, dtype=torch.float64)

    shapes, relations, target_shapes, units = zip(*kinds, strict=True)
    unit = torch.tensor([[UNITS[u]] for u in units], dtype=torch.float64)

    def size_and_turn(names: Sequence[str]) -> tuple[Tensor, Tensor]:
        factors = torch.tensor([SHAPES[name] for name in names], dtype=torch.float64)
        own = factors[:, 2:]
        size = torch.where(own > 0, own, unit * (0.01 + 0.5 * shares()))
        return size * factors[:, :2].abs(), factors[:, :2] < 0

    def corners(low: Tensor, high: Tensor, turned: Tensor) -> Tensor:
        return torch.cat([torch.where(turned, high, low), torch.where(turned, low, high)], dim=1)

    size, turned = size_and_turn(shapes)
    target_size, target_turned = size_and_turn(target_shapes)
    low = unit * (shares() - 0.25)
    high = low + target_size

    share = shares()
    places = torch.stack([begin(low, high, size, share, unit) for begin in RELATIONS.values()])
    relation = torch.tensor([list(RELATIONS).index(name) for name in relations])
    first = places[relation, torch.arange(len(kinds))]
    identical = torch.tensor([[name == "identical to"] for name in relations])
    last = torch.where(identical, high, first + size)
    return corners(first, last, turned), corners(low, high, target_turned)


def logits_and_target(
    kinds: Sequence[Kind], generator: torch.Generator, dtype: torch.dtype, backgrounds: int
) -> tuple[Tensor, Tensor]:
    """Logits (N, C) and class indices (N,) of each of `INDEX_KINDS`, or shares of `SHARE_KINDS`.

    A kind says how large the first logit is and how large the others are, at most half the largest
    number, so that the difference of two is a number.
    """
    first, others, labels = zip(*kinds, strict=True)
    logits = 2 * torch.rand(len(kinds), CLASSES, generator=generator, dtype=torch.float64) - 1
    logits = torch.where(torch.rand(logits.shape, generator=generator) < 0.5, logits.sign(), logits)
    limit = torch.finfo(dtype).max / 2
    logits[:, 0] *= torch.tensor([LOGITS[size] for size in first])
    logits[:, 1:] *= torch.tensor([[LOGITS[size]] for size in others])
    logits = logits.clamp(-limit, limit).to(dtype)

    index = torch.randint(CLASSES - backgrounds, (len(kinds),), generator=generator)
    if labels[0] in INDICES:
        special = {"background": CLASSES - backgrounds, "ignored": -1}
        chosen = [special.get(label, i) for label, i in zip(labels, index.tolist(), strict=True)]
        return logits, torch.tensor(chosen)
    one_hot = torch.eye(CLASSES)[index]
    soft = torch.rand(len(kinds), CLASSES, generator=generator)
    soft = soft / soft.sum(1, keepdim=True) if backgrounds else soft
    which = torch.tensor([SHARES.index(label) for label in labels])
    shares = torch.stack([one_hot, soft, torch.zeros_like(soft)])
    return logits, shares[which, torch.arange(len(kinds))].to(dtype)


def logits_of_bins(
    kinds: Sequence[Kind], generator: torch.Generator, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Logits (N, 4, BINS) and distances (N, 4) in bins of each of `BIN_KINDS`."""
    first, others, places = zip(*kinds, strict=True)
    logits = 2 * torch.rand(len(kinds), 4, BINS, generator=generator, dtype=torch.float64) - 1
    largest = torch.finfo(dtype).max / 2
    logits[..., 0] *= torch.tensor([[LOGITS[size]] for size in first])
    logits[..., 1:] *= torch.tensor([[[LOGITS[size]]] for size in others])
    share, whole = torch.tensor([PLACES[place] for place in places]).T[..., None]
    distances = torch.rand(len(kinds), 4, generator=generator, dtype=torch.float64) * (BINS - 1)
    distances = torch.where(whole == 1, distances.round(), distances) * share
    return logits.clamp(-largest, largest).to(dtype), distances.to(dtype)


def kinds_of(loss: Loss) -> list[list[Kind]]:
    """The kinds of rows that a loss takes; those of one list go into one batch."""
    if isinstance(loss, BoxLoss) and loss.space == "bins":
        return [BIN_KINDS]
    return [BOX_KINDS] if isinstance(loss, BoxLoss) else [INDEX_KINDS, SHARE_KINDS]


def draw(
    loss: Loss, kinds: Sequence[Kind], generator: torch.Generator, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Predictions and targets for a loss, a row of each kind."""
    if not isinstance(loss, BoxLoss):
        return logits_and_target(kinds, generator, dtype, loss.background_columns)
    if loss.space == "bins":
        return logits_of_bins(kinds, generator, dtype)
    limits = torch.finfo(dtype)
    pred, target = (b.clamp(limits.min, limits.max).to(dtype) for b in box_pairs(kinds, generator))
    if loss.space == "boxes":
        return pred, target
    deltas = torch.randn(pred.shape, generator=generator, dtype=torch.float64)
    powers = torch.randint(-3, 4, (len(kinds), 1), generator=generator)
    return (deltas * 10.0**powers).to(dtype), DeltaCoder().encode(target, pred)


# --- Checks ---------------------------------------------------------------------------------------


def values_of(annotation: object) -> list[object]:
    """What is tried of an option: every word, numbers over their range, a list, nothing."""
    is_union = get_origin(annotation) in (Union, UnionType)
    branches = get_args(annotation) if is_union else [annotation]
    values: list[object] = []
    for branch in branches:
        values += [number for kind, numbers in NUMBERS if branch == kind for number in numbers]
        values += choices_of(branch)
        if branch is bool:
            values += [False, True]
        elif branch == Sequence[float]:
            values.append(PER_CLASS)
        elif branch is type(None):
            values.append(None)
    return values


def variants(section: str, name: str) -> list[Loss]:
    """A registered loss with all values of its options that are tried: each with each, or where
    those are many, one after the other. In evaluation mode, in which none remembers a call.
    """
    hints = get_type_hints(SECTIONS[section][name].__init__, include_extras=True)
    options = {
        option: NUMBERS_OF.get(option) or values_of(hints[option])
        for option in SECTIONS[section][name].option_names
        if option not in OF_EVERY_LOSS
    }
    options = {option: values for option, values in options.items() if values}
    each = [
        dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())
    ]
    if len(each) > MOST_VARIANTS:
        each = [{option: value} for option, values in options.items() for value in values]
    found = []
    for given in each:
        try:
            found.append(detloss.build_part(section, {"type": name, **given}).eval())
        except detloss.ConfigError as error:
            if len(options) < 2 or "expected" in str(error):
                raise  # else options that do not go together
    return found


def value_and_gradient(
    loss: Loss, pred: Tensor, target: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The unreduced loss, and its gradient; zeros where it has none."""
    pred = pred.detach().requires_grad_()
    value = loss.compute(pred, target, weight=weight, reduction="none")
    if not value.requires_grad:
        return value, torch.zeros_like(pred)
    value.sum().backward()
    return value.detach(), pred.grad


def steepness(loss: Loss, value: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of each row over the steepest, ``10 / sqrt(eps)``, or up to as many times that
    as the docstring says in terms of the options.

    That of ``-ln IoU`` is steeper by 1 / IoU.
    """
    stated = re.search(r"up\s+to\s+``(.+?)``\s+times\s+as\s+steep", loss.function.__doc__)
    times = eval(stated[1], {}, loss.config()) if stated else 1
    allowed = 10 * times / math.sqrt(loss.eps)
    steepest = gradient.to(value.dtype).abs().amax(1) / allowed
    return steepest * value.neg().exp() if loss.config().get("mode") == "log" else steepest


def highest(loss: Loss) -> float:
    """The largest value of a loss, as its docstring states it."""
    stated = re.fullmatch(r"\[0, (.+)[)\]]", range_of(loss.function, loss.config().values()))
    if not stated:
        return math.inf
    return -math.log(loss.eps) if stated[1] == "-ln eps" else float(stated[1])


def rounding(loss: Loss, pred: Tensor, target: Tensor) -> Tensor | float:
    """What the last bit of a coordinate makes of the distance of centres in a gradient, (N, 1)."""
    if not isinstance(loss, BoxLoss) or loss.space != "boxes":
        return 0.0
    diagonal = Lengths(pred, target).hull_sides.square().sum(0).clamp(min=loss.eps)
    last_bit = torch.maximum(pred.abs(), target.abs()).amax(1) * torch.finfo(pred.dtype).eps
    return (4 * last_bit / diagonal)[:, None]


def differs(
    found: Sequence[Tensor],
    expected: Sequence[Tensor],
    rtol: float = 0.0,
    atol: Tensor | float = 0.0,
) -> Tensor:
    """Rows (N,) where a tensor found is not the one expected."""
    wrong = []
    for one, other in zip(found, expected, strict=True):
        one, other = one.reshape(len(one), -1), other.reshape(len(other), -1)
        close = (one - other).abs() <= rtol * other.abs() + atol
        same = (one == other) | (one.isnan() & other.isnan())  # infinite ones too
        wrong.append(~(close | same).all(1))
    return wrong[0] | wrong[1]


def problems(loss: Loss, pred: Tensor, target: Tensor) -> Iterator[tuple[str, Tensor]]:
    """What may be wrong with a loss, and the rows (N,) with which it is."""

    def rows(wrong: Tensor) -> Tensor:
        return wrong.reshape(len(pred), -1).any(1)

    found = value, gradient = value_and_gradient(loss, pred, target)
    yield "the loss is not finite", rows(~value.isfinite())
    if pred.dtype != torch.float16:  # there it is held against what float32 gives, see below
        yield "the gradient is not finite", rows(~gradient.isfinite())
    yield "the loss is negative", rows(value < 0)
    yield (
        "the loss is larger than its docstring says",
        rows(value > value.new_tensor(highest(loss))),
    )

    if isinstance(loss, BoxLoss) and loss.space == "boxes":
        inverted = rows(pred[:, 2:] < pred[:, :2]) | rows(target[:, 2:] < target[:, :2])
        yield "an inverted box scores as a good one", inverted & (value < 1)
        too_steep = steepness(loss, value, gradient) > 1
        yield "the gradient is steeper than its docstring says", too_steep

    poisoned, poisoned_target = pred.clone(), target.clone()
    silent = torch.arange(len(pred)) % 2 == 1
    poisoned[silent] = math.nan
    if isinstance(loss, BoxLoss):
        poisoned_target[silent] = math.nan
    weight = torch.where(silent, 0.0, 1.0)
    one, other = value_and_gradient(loss, poisoned, poisoned_target, weight)
    yield "weight 0 does not silence a NaN", silent & (rows(one != 0) | rows(other != 0))
    yield "a silent row of NaN changes another row", ~silent & differs((one, other), found)
    one, other = value_and_gradient(loss, poisoned, poisoned_target)
    yield "a row of NaN changes another row", ~silent & differs((one, other), found)

    if pred.dtype == torch.float64:
        with plain_formulas():
            plain = value_and_gradient(loss, pred, target)
        wrong = differs(found, plain, 1e-9, 1e-9 + rounding(loss, pred, target))
        yield "the closed form is not the plain formula", wrong
    elif pred.dtype == torch.float32:
        if not isinstance(loss, BoxLoss):  # a distance of boxes may be lost in their coordinates
            wide = value_and_gradient(loss, pred.double(), target)
            yield "it is not what float64 gives", differs(found, wide, 1e-4, 1e-5)
    else:
        wide, wide_gradient = value_and_gradient(loss, pred.float(), target)
        # a gradient is infinite where it is beyond float16, and only there
        wide_gradient = wide_gradient.to(pred.dtype)
        yield "it is not what float32 gives", differs(found, (wide, wide_gradient))

    if not isinstance(loss, BoxLoss) and target.ndim == 1:
        ignored = target == loss.ignore_index
        yield "an ignored row is not 0", ignored & (rows(value != 0) | rows(gradient != 0))
    if loss.type_name in AT_GAMMA_0 and loss.gamma == 0:
        name, alpha = AT_GAMMA_0[loss.type_name]
        options = {alpha: loss.config()["alpha"], "label_smoothing": loss.label_smoothing}
        peer = detloss.build_part("classification", {"type": name, **options})
        plain = value_and_gradient(peer, pred, target)
        yield "at gamma 0 it is not cross-entropy", differs(found, plain, 1e-5, 1e-30)


# --- The program ----------------------------------------------------------------------------------


@dataclass
class Tally:
    """What came of the cases, by name and dtype of the loss.

    Attributes:
        cases: How many were tried.
        failures: How many of them had a problem.
        steepest: The largest `steepness` of a loss on boxes.
        reports: Of each problem the first row that had it, in words.
    """

    cases: Counter[tuple[str, torch.dtype]] = field(default_factory=Counter)
    failures: Counter[tuple[str, torch.dtype]] = field(default_factory=Counter)
    steepest: dict[tuple[str, torch.dtype], float] = field(default_factory=dict)
    reports: dict[tuple[str, torch.dtype, str], str] = field(default_factory=dict)

    def try_out(
        self, loss: Loss, kinds: Sequence[Kind], generator: torch.Generator, dtype: torch.dtype
    ) -> None:
        """Adds a row of each kind."""
        pred, target = draw(loss, kinds, generator, dtype)
        key = loss.type_name, dtype
        failed = torch.zeros(len(kinds), dtype=torch.bool)
        for what, wrong in problems(loss, pred, target):
            failed |= wrong
            if wrong.any():
                row = int(wrong.nonzero()[0])
                text = (
                    f"{loss.config()} in {dtype}: {what}: {' '.join(kinds[row])}: "
                    f"{pred[row].tolist()} against {target[row].tolist()}"
                )
                self.reports.setdefault((*key, what), text)
        self.cases[key] += len(kinds)
        self.failures[key] += int(failed.sum())
        if isinstance(loss, BoxLoss) and loss.space == "boxes":
            steepest = steepness(loss, *value_and_gradient(loss, pred, target)).max().item()
            self.steepest[key] = max(steepest, self.steepest.get(key, 0.0))

    def table(self) -> Table:
        """A line for each loss and dtype."""
        table = Table("loss", "dtype", box=None)
        for column in ("cases", "failures", "steepest"):
            table.add_column(column, justify="right")
        for key, cases in self.cases.items():
            steepest = f"{self.steepest[key]:.3f}" if key in self.steepest else ""
            name, dtype = key[0], str(key[1]).removeprefix("torch.")
            table.add_row(name, dtype, f"{cases:,}", f"{self.failures[key]:,}", steepest)
        return table


def fuzz(cases: int, seed: int) -> Tally:
    """Tries at least so many cases, spread evenly over losses and dtypes."""
    generator, choose = torch.Generator().manual_seed(seed), random.Random(seed)
    losses = [variants("box", name) for name in REGRESSION.names()]
    losses += [variants("classification", name) for name in CLASSIFICATION.names()]
    tally = Tally()
    while (left := cases - tally.cases.total()) > 0:
        count = min(ROWS, -(-left // (len(losses) * len(DTYPES))))
        for members, dtype in itertools.product(losses, DTYPES):
            loss = choose.choice(members)
            kinds = choose.choices(choose.choice(kinds_of(loss)), k=count)
            tally.try_out(loss, kinds, generator, dtype)
    return tally


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzzes and reports; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    tally = fuzz(options.cases, options.seed)
    console = Console()
    console.print(tally.table())
    for report in tally.reports.values():
        console.print(f"seed {options.seed}: {report}", style="red", soft_wrap=True, markup=False)
    failures = tally.failures.total()
    console.print(f"{tally.cases.total():,} cases, {failures:,} failures", highlight=False)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
