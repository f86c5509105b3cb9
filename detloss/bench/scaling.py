"""How time grows with the size of the input: curves, and their picture.

Each curve is timed in a fresh process, at every size the least of several runs, since other
programs only add to a run. On a CPU it is the time of the cores, which they add less to.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from detloss.bench.cases import boxes, criterion, focal, indices, matching
from detloss.bench.cases.matching import STRIDES, cells_along
from detloss.bench.measure import Case, cure, in_fresh_process, seconds_of

SECONDS, LEAST_RUNS = 1.0, 3
STEEP = 1.5
"""How many times as much as the size the time grows where it is called a jump."""

CaseOf = Callable[[int, torch.device], Case]
"""Size, device -> case."""


@dataclass(frozen=True)
class Sweep:
    """One size that is varied.

    Attributes:
        sizes: Its values.
        fixed: The other sizes, in words.
        curves: What is timed at each.
    """

    sizes: Sequence[int]
    fixed: str
    curves: Mapping[str, CaseOf]


def _side(anchors: int) -> int:
    """Of the square image that has about that many of RetinaNet's anchors."""

    def difference(side: int) -> int:
        return abs(9 * sum(cells**2 for cells in cells_along(side, STRIDES)) - anchors)

    return min(range(STRIDES[0], 10_000, STRIDES[0]), key=difference)


SWEEPS = {
    "anchors": Sweep(
        [10**4, 3 * 10**4, 10**5, 3 * 10**5, 10**6, 3 * 10**6, 10**7],
        "80 classes, one image of 20 objects",
        {
            "criterion": lambda n, on: criterion(on, 1.0, counts=(20,), side=_side(n)),
            "focal": lambda n, on: focal(on, 1.0, size=(n, 80)),
            "ciou": lambda n, on: boxes(on, 1.0, kind="ciou", count=n),
            "max_iou": lambda n, on: matching(on, 1.0, counts=(20,), side=_side(n)),
        },
    ),
    "classes": Sweep(
        [1, 20, 80, 1203],
        "2 x 76,725 anchors",
        {
            "criterion": lambda n, on: criterion(on, 1.0, classes=n),
            "focal": lambda n, on: focal(on, 1.0, size=(153_450, n)),
            "softmax_cross_entropy": lambda n, on: indices(
                on, 1.0, name="softmax_cross_entropy", size=(153_450, n)
            ),
        },
    ),
    "objects": Sweep(
        [1, 5, 20, 100, 500, 2000, 5000],
        "one image, 76,725 anchors or 8,525 points, 80 classes",
        {
            "criterion": lambda n, on: criterion(on, 1.0, counts=(n,)),
            "max_iou": lambda n, on: matching(on, 1.0, counts=(n,), side=640),
            "atss": lambda n, on: matching(on, 1.0, counts=(n,), side=640, name="atss"),
            "fcos": lambda n, on: matching(on, 1.0, counts=(n,), side=640, name="fcos"),
        },
    ),
    "images": Sweep(
        [1, 2, 4, 8, 16, 32, 64],
        "76,725 anchors or 8,525 points and 7 objects each, 80 classes",
        {
            "criterion": lambda n, on: criterion(on, 1.0, counts=(7,) * n),
            "focal": lambda n, on: focal(on, 1.0, size=(76_725 * n, 80)),
            "gfl criterion": lambda n, on: criterion(on, 1.0, name="gfl", counts=(7,) * n),
            "max_iou": lambda n, on: matching(on, 1.0, counts=(7,) * n, side=640),
        },
    ),
}


def time_curve(sweep: str, device: torch.device, curve: str) -> list[float]:
    """Milliseconds at each size, in this process."""
    if device.type == "cpu":
        cure()
    return [
        1000 * _least(SWEEPS[sweep].curves[curve](size, device), device)
        for size in SWEEPS[sweep].sizes
    ]


def _least(case: Case, device: torch.device) -> float:
    """The least time of several runs, in seconds."""
    run = case.runners["detloss"]
    run()
    times: list[float] = []
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until or len(times) < LEAST_RUNS:
        times.append(seconds_of(run, device, clock))
    return min(times)


def time_sweeps(device: torch.device) -> dict[str, dict[str, list[float]]]:
    """Sweep -> curve -> milliseconds at each size, each curve in a fresh process."""
    threads = torch.get_num_threads()
    return {
        name: {
            curve: in_fresh_process("curve", name, device, threads, curve) for curve in sweep.curves
        }
        for name, sweep in SWEEPS.items()
    }


def jumps(times: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """Where a time grows 1.5 times as much as the size, in words."""
    found = []
    for name, curves in times.items():
        sizes = SWEEPS[name].sizes
        for curve, milliseconds in curves.items():
            for (less, before), (more, after) in pairwise(zip(sizes, milliseconds, strict=True)):
                if after / before > STEEP * more / less:
                    found.append(
                        f"{curve}: {more:,} {name} take {after / before:.3g} times as long as "
                        f"{less:,}, and are {more / less:.3g} times as many"
                    )
    return found


def draw(times: Mapping[str, Mapping[str, Sequence[float]]], path: Path, heading: str) -> None:
    """A picture with a panel for each sweep.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.5), layout="constrained")
    figure.suptitle(f"Forward and backward, milliseconds ({heading})", fontsize=11)
    panels: Any = figure.subplots(2, 2)
    for panel, (name, curves) in zip(panels.flat, times.items(), strict=True):
        sizes = SWEEPS[name].sizes
        panel.set_title(SWEEPS[name].fixed, fontsize=9)
        panel.set(xscale="log", yscale="log", xlabel=name)
        panel.set_xticks(sizes, [f"{size:g}" for size in sizes], fontsize=8)
        panel.minorticks_off()
        for curve, milliseconds in curves.items():
            panel.plot(sizes, milliseconds, marker="o", markersize=4, label=curve)
        _proportional(panel, sizes, max(curves.values(), key=max)[-1])
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    figure.savefig(path, dpi=80)


def _proportional(panel: Any, sizes: Sequence[int], last: float) -> None:
    """A dashed line along which time is proportional to size, and that ends there."""
    limits = panel.get_ylim()
    line = [last * size / sizes[-1] for size in sizes]
    panel.plot(sizes, line, "--", color="grey", linewidth=1, label="proportional")
    panel.set_ylim(limits)
