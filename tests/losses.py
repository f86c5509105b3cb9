"""Every loss in two tables, which are docs/losses.md.

    python -m tests.losses

writes the page. What a loss says of itself, and what it is of the truth, test_losses.py holds the
page to. How far it is from the same loss of other packages, and how long it takes, is measured in
some minutes; all these packages must be installed, and the command says which is not. mmdet is
installed without models by `pip install --no-deps mmdet==3.3.0 mmengine==0.10.7 mmcv-lite==2.1.0`
and the few small packages that its import then asks for.
"""

import sys
import warnings
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from operator import itemgetter
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

import detloss
from detloss.bench.cases.boxes import paired_boxes
from detloss.bench.cases.classification import logits_and_labels
from detloss.bench.cases.peers import PEERS, Peer
from detloss.bench.cases.runners import forward_backward, normal
from detloss.bench.measure import Case, Measurement, compare, difference
from detloss.bench.report import machine
from detloss.docstrings import papers_of, range_of
from detloss.kernels import Loss
from detloss.registry import SECTIONS

PAGE = Path(__file__).parents[1] / "docs" / "losses.md"
INTRODUCTION = """\
# Losses

Each loss that a config can name, with the options that it has by default. `python -m tests.losses`
writes this page.

- **range**: of the loss of a row; where every class is a yes or no, of each class. The tests try
  it on random rows and on those that break losses.
- **of the truth**: the largest loss of 1,000 predictions that are the truth. Boxes, deltas and
  distances are random; of a class the answer is certain. It is above 0 where cross-entropy is
  taken of shares.
- **differs from**: packages that have the loss, and how far theirs is from ours, in float64: the
  largest difference of the sum over 2,000 rows, or of its gradient, relative to the largest value.
- **time**: of a forward and a backward pass over 100,000 boxes, or 76,725 anchors with 80 classes,
  as a multiple of the one that is 1.
"""
TITLES = {"box": "Boxes", "classification": "Classes"}
UNITS = {"box": "giou", "classification": "sigmoid_focal"}
"""Section -> the loss whose time is 1."""
COLUMNS = ["loss", "paper", "range", "of the truth", "differs from", "time"]
STATED = 4
"""Columns that need neither another package nor a clock."""

CPU = torch.device("cpu")
CLASSES, BINS = 80, 16
CERTAIN = 1e4
"""A logit whose probability is 1, and exactly so."""


# --- What a loss is -------------------------------------------------------------------------------


def build(section: str, name: str, **options: Any) -> Loss:
    """A loss of sums."""
    loss = detloss.build_part(section, {"type": name, "reduction": "sum", **options})
    assert isinstance(loss, Loss)
    return loss


def stated(section: str, name: str) -> list[str]:
    """The first cells of a row: the name, the paper, the range, and the loss of the truth."""
    loss = build(section, name)
    papers = []
    for paper in papers_of(type(loss)):
        preprint = f", [{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else ""
        papers.append(f"{paper.authors} {paper.year}{preprint}")
    file = f"../{type(loss).__module__.replace('.', '/')}.py"
    return [
        f"[{name}]({file})",
        "; ".join(papers),
        range_of(loss.function, loss.config().values()),
        of_the_truth(loss),
    ]


def of_the_truth(loss: Loss) -> str:
    """The largest loss of predictions that are the truth."""
    pred, target = truth(loss)
    largest = float(loss.compute(pred, target, weight=None, reduction="none").max())
    return f"{largest:.2g}" if largest > 1e-9 else "0"


def truth(loss: Loss) -> tuple[Tensor, Tensor]:
    """1,000 predictions that are their targets, and those."""
    _, target = rows(loss, 1_000)
    space = getattr(loss, "space", "classes")
    if space == "bins":  # the two bins beside a distance share it
        shares = (1 - (target[..., None] - torch.arange(BINS)).abs()).clamp(min=0)
        return shares.log().clamp(min=-CERTAIN), target
    if space == "classes":
        is_class = target[:, None] == torch.arange(CLASSES)
        return torch.where(is_class, CERTAIN, -CERTAIN).double(), target
    return target, target


def rows(loss: Loss, count: int) -> tuple[Tensor, Tensor]:
    """Predictions in float64 and targets: boxes, deltas, bins, or logits and class indices."""
    space = getattr(loss, "space", "classes")
    if space == "boxes":
        pred, target = paired_boxes(count, CPU)
    elif space == "deltas":
        pred, target = (normal(count, 4, device=CPU, seed=seed) for seed in range(2))
    elif space == "bins":
        pred = normal(count, 4, BINS, device=CPU)
        target = (BINS - 2) * normal(count, 4, device=CPU, seed=1).sigmoid()
    else:  # every class, and background where it is no column
        columns = torch.arange(count) % (CLASSES + 1 - loss.background_columns)
        return 3 * normal(count, CLASSES, device=CPU).double(), columns
    return pred.double(), target.double()


# --- What is measured -----------------------------------------------------------------------------


def measured(section: str, name: str) -> list[str]:
    """The last cells of a row: the packages that have the loss with their differences; the time."""
    differs = []
    for peer in PEERS.get(name, ()):
        options = "".join(f" ({option}: {value})" for option, value in peer.options.items())
        found = distance(build(section, name, **peer.options), peer)
        differs.append(f"{peer.package}{options} {format(found, '.0e') if found else 0}")
    if not getattr(SECTIONS[section][name], "differentiable", True):
        return [", ".join(differs), "no gradient"]
    time = timed(section, name)
    own = f"1 ({time.milliseconds:.3g} ms)"
    return [", ".join(differs), own if name == UNITS[section] else f"{time.cured_ratio:.2g}"]


def distance(loss: Loss, peer: Peer) -> float:
    """How far the sum of a peer's loss, or its gradient, is from ours."""
    pred, target = rows(loss, 2_000)
    if target.ndim == 1 and not loss.background_columns:
        target = one_hot(target, CLASSES + 1)[:, :-1].double()
        if peer.soft:
            target *= normal(len(target), 1, device=CPU, seed=1).sigmoid()
    theirs = peer.loss()
    runs = (
        forward_backward(lambda x: loss(x, target), pred),
        forward_backward(lambda x: theirs(x, target), pred),
    )
    return difference(*([result.detach() for result in run()] for run in runs))


def timed(section: str, name: str) -> Measurement:
    """The time of a loss beside that of the loss that has 1."""
    runs = {}
    for one in (UNITS[section], name):
        loss = build(section, one)
        if section == "classification":
            pred, target = logits_and_labels(76_725, CLASSES, CPU)
            target = target.clamp(max=CLASSES - loss.background_columns)
        else:
            pred, target = (of_rows.float() for of_rows in rows(loss, 100_000))
        runs[one] = forward_backward(partial(loss, target=target), pred)
    values = itemgetter(slice(1))  # of two losses, whose gradients may differ in shape
    return compare(Case("", runs, 0, tensors=values), name, CPU, seconds=1.0)


# --- The page -------------------------------------------------------------------------------------


def page(cells: dict[tuple[str, str], list[str]], measured_with: str) -> str:
    """The page, with the measured cells of each section and name."""
    parts = [INTRODUCTION]
    for section, title in TITLES.items():
        table = [COLUMNS, ["---"] * len(COLUMNS)]
        table += [
            [*stated(section, name), *cells[section, name]] for name in SECTIONS[section].names()
        ]
        lines = "".join(f"| {' | '.join(row)} |\n" for row in table)
        parts.append(f"## {title}\n\n{lines}")
    return "\n".join([*parts, f"Measured with {measured_with}.\n"])


def main() -> int:
    """Writes the page; returns the exit status."""
    sys.meta_path.insert(0, CompiledOps())
    peers = [peer for of_loss in PEERS.values() for peer in of_loss]
    with warnings.catch_warnings(action="ignore"):  # packages about each other
        missing = sorted({peer.module for peer in peers if peer.loss() is None})
    if missing:
        print(f"must be installed: {', '.join(missing)}", file=sys.stderr)
        return 1
    cells = {}
    for section in TITLES:
        for name in SECTIONS[section].names():
            cells[section, name] = measured(section, name)
            print(name, *cells[section, name])
    packages = sorted({peer.module.split(".")[0] for peer in peers})
    releases = [f"{package} {version(package)}" for package in packages]
    PAGE.write_text(page(cells, "; ".join([machine(CPU), ", ".join(releases)])))
    print(f"{PAGE}: {len(cells)} losses")
    return 0


class CompiledOps(MetaPathFinder, Loader):
    """mmcv.ops for mmdet to import: mmcv-lite lacks its compiled code, which no loss here needs."""

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        """Whatever is looked for there, it is found."""
        if name.split(".")[:2] == ["mmcv", "ops"]:
            return ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """A module in which every public name is a class."""
        return _AnyClass(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


class _AnyClass(ModuleType):
    def __getattr__(self, name: str) -> type[nn.Module]:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (nn.Module,), {})


if __name__ == "__main__":
    sys.exit(main())
