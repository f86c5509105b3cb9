"""Trains the detector of a config with every loss that one of its terms could have.

The loss takes the place of the term's own, and the other terms stay as they are: each loss of
classes trains beside the same loss of boxes, and the other way round.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from evaluation import detect, evaluate
from image_sets import DetectionData
from messages import console
from runs import Settings
from train_detector import config_path, start, train

import detloss

HEADINGS = ("first", "last", "falls", "AP50", "not finite", "seconds")


@dataclass(frozen=True)
class Row:
    """What the training with a loss came to.

    Attributes:
        term: The term whose loss it was.
        name: The loss.
        history: Each term's value in each step.
        moving: Whether positives are labelled with how good their boxes are. Such a loss may rise
            while they get better.
        ap50: Average precision on the test images, of boxes from an IoU of 0.5.
        seconds: Of training and evaluation.
    """

    term: str
    name: str
    history: Mapping[str, Sequence[float]]
    moving: bool
    ap50: float
    seconds: float

    @property
    def ends(self) -> tuple[float, float]:
        """The loss at both ends: the mean of the first tenth of the steps, and of the last."""
        values = self.history[self.term]
        tenth = math.ceil(len(values) / 10)
        return fmean(values[:tenth]), fmean(values[-tenth:])

    @property
    def falls(self) -> bool:
        """Whether the loss is lower at the end."""
        first, last = self.ends
        return last < first

    @property
    def answer(self) -> str:
        """Whether it falls, in words."""
        if self.falls:
            return "yes"
        return "label grows" if self.moving and math.isfinite(self.ends[1]) else "no"

    @property
    def not_finite(self) -> int:
        """Steps with a term that is not finite, as all are after a gradient that is not."""
        steps = zip(*self.history.values(), strict=True)
        return sum(not all(map(math.isfinite, values)) for values in steps)

    def cells(self) -> list[str]:
        """What stands under `HEADINGS`."""
        first, last = (f"{value:.3g}" for value in self.ends)
        numbers = f"{self.ap50:.3f}", f"{self.not_finite}", f"{self.seconds:.0f}"
        return [first, last, self.answer, *numbers]


def train_every_loss(settings: Settings, data: DetectionData) -> int:
    """Trains with each loss, prints its row and writes losses.md; returns the exit status."""
    configs, left_out = candidates(settings, data)
    width = max(len(name) for _, name in configs)
    file = Path(settings.out) / "losses.md"
    rows: list[Row] = []
    began = time.perf_counter()
    print_line(f"{len(configs)} losses, {settings.steps} steps each")
    for (term, name), config in configs.items():
        if not rows or rows[-1].term != term:
            print_line(in_columns(term, HEADINGS, width), style="bold")
        title = f"{len(rows) + 1} of {len(configs)}"
        if rows:
            minutes = (time.perf_counter() - began) / 60 / len(rows) * (len(configs) - len(rows))
            title += f", {minutes:.0f} min left"
        row = train_with(term, name, config, settings, data, title=f"{title}: {name}")
        if row is None:
            print_line("Stopped; a comparison starts over.")
            return 130
        rows.append(row)
        fine = row.answer != "no" and not row.not_finite
        print_line(in_columns(name, row.cells(), width), style="" if fine else "red")
        file.write_text(markdown(settings, rows, left_out))
    for name, reason in left_out.items():
        print_line(f"left out {name}: {reason}", style="yellow")
    print_line(f"{conclusion(rows)} {(time.perf_counter() - began) / 60:.1f} min, see {file}")
    return 0


def candidates(
    settings: Settings, data: DetectionData
) -> tuple[dict[tuple[str, str], dict[str, Any]], dict[str, str]]:
    """The config with each loss of each term, and of the losses that do not fit the reason."""
    base = detloss.load_config(config_path(settings.config))
    fitting, left_out = {}, {}
    for name, term in base.terms.items():
        for loss in term.losses.names():
            config = {**base.config(), name: {"type": loss}}
            try:
                start(settings, data, detloss.build(config))
            except ValueError as error:
                left_out[loss] = str(error)
            else:
                fitting[name, loss] = config
    return fitting, left_out


def train_with(
    term: str,
    name: str,
    config: Mapping[str, Any],
    settings: Settings,
    data: DetectionData,
    *,
    title: str,
) -> Row | None:
    """The row of a loss; None if the user interrupted it."""
    criterion = detloss.build(config)
    run = start(settings, data, criterion)
    if not train(run, data, title=title):
        return None
    began = time.perf_counter()
    with console.status(f"{title}, evaluation"):
        detections = detect(run.model, data.test, settings.batch_size, settings.device)
        ap50 = evaluate(detections, data.test).metrics["AP50"]
    moving = getattr(criterion.terms[term], "label", None) is not None
    return Row(term, name, run.history, moving, ap50, run.seconds + time.perf_counter() - began)


def conclusion(rows: Sequence[Row]) -> str:
    """Which losses do not do what a loss should."""
    rise = [row.name for row in rows if row.answer == "no"]
    moved = [row.name for row in rows if row.answer not in ("yes", "no")]
    odd = [row.name for row in rows if row.not_finite]
    falling = f"Not lower at the end: {', '.join(rise)}." if rise else "Each is lower at the end."
    if moved:
        falling += f" But where the label grows with the boxes' IoU: {', '.join(moved)}."
    finite = f"Not always finite: {', '.join(odd)}." if odd else "Every step was finite."
    return f"{falling} {finite}"


def in_columns(name: str, cells: Sequence[str], width: int) -> str:
    """A line of the table on the screen."""
    return f"{name:<{width}}" + "".join(f"{cell:>12}" for cell in cells)


def print_line(text: str, style: str = "") -> None:
    """Prints a line as it is."""
    console.print(text, style=style, soft_wrap=True, markup=False, highlight=False)


def markdown(settings: Settings, rows: Sequence[Row], left_out: Mapping[str, str]) -> str:
    """The tables, one a term, and what is left out."""
    config, data = Path(settings.config).stem, settings.data.split(":")[0]
    lines = [
        f"# Each loss on {data}",
        "",
        f"{config} with one loss after the other in place of its own: {settings.steps} steps of "
        f"{settings.batch_size} images, seed {settings.seed}. First and last are means of a tenth "
        "of the steps; each loss has its own unit.",
    ]
    for term in dict.fromkeys(row.term for row in rows):
        lines += ["", f"| {term} | {' | '.join(HEADINGS)} |", "|---" * (len(HEADINGS) + 1) + "|"]
        lines += [f"| {row.name} | {' | '.join(row.cells())} |" for row in rows if row.term == term]
    lines += ["", *(f"- Left out {name}: {reason}" for name, reason in left_out.items())]
    return "\n".join([*lines, "", conclusion(rows), ""])
