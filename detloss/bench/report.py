"""Running the cases and printing what they came to."""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.table import Table

from detloss.bench.cases import CASES
from detloss.bench.measure import Measurement, bandwidth, in_fresh_process

Setting = tuple[str, torch.device, int]
"""Case, device, threads."""


@dataclass(frozen=True)
class CaseResult:
    """A case and what its runners came to.

    Attributes:
        name: The case.
        title: What was computed, on how much.
        device: Where.
        threads: CPU threads.
        input_bytes: Size of the predictions.
        bound_milliseconds: The bytes that have to be moved over the measured bandwidth, or None.
        measurements: One a runner, detloss first.
    """

    name: str
    title: str
    device: str
    threads: int
    input_bytes: int
    bound_milliseconds: float | None
    measurements: list[Measurement]


def run_cases(
    only: Sequence[str], device: torch.device, *, memory: bool, show: bool
) -> list[CaseResult]:
    """Runs the cases whose name contains one of `only`.

    Raises:
        ValueError: If no case does.
    """
    chosen = [name for name in CASES if any(part in name for part in only)]
    if not chosen:
        raise ValueError(f"only must name some of {', '.join(CASES)}, got {', '.join(only)}")
    threads = torch.get_num_threads()
    bytes_a_second = bandwidth(device)
    results = []
    for name in chosen:
        if show:
            print(f"{name} ...", file=sys.stderr)
        setting = name, device, threads
        found = in_fresh_process("describe", *setting)
        measurements = _measurements(setting, *found["runners"])
        if memory:
            measurements = [replace(m, peak_bytes=_peak(setting, m.name)) for m in measurements]
        least = found["least_bytes"]
        results.append(
            CaseResult(
                name,
                found["title"],
                str(device),
                threads,
                found["input_bytes"],
                1000 * least / bytes_a_second if least else None,
                measurements,
            )
        )
    return results


def _measurements(setting: Setting, first: str, *others: str) -> list[Measurement]:
    """The first runner and the others, each timed beside the first in a process of their own."""
    beside = [
        Measurement(**in_fresh_process("times", *setting, name)) for name in others or [first]
    ]
    milliseconds = statistics.median(m.beside for m in beside)
    return [Measurement(first, milliseconds, 1.0, 0.0), *(beside if others else [])]


def _peak(setting: Setting, runner: str) -> int | None:
    """The peak of a runner, None where it fails, as on a CPU of a system other than Linux."""
    try:
        peak: int = in_fresh_process("peak", *setting, runner)
    except RuntimeError:
        return None
    return peak


def report(console: Console, results: Sequence[CaseResult]) -> None:
    """A table a case: times, ratios to the first runner, differences, peaks, and the bound."""
    for result in results:
        table = Table(
            title=f"{result.name}: {result.title} ({result.device}, {result.threads} threads)",
            title_justify="left",
        )
        first = result.measurements[0].name
        table.add_column("", no_wrap=True, min_width=max(len(m.name) for m in result.measurements))
        columns = "ms", f"{first} beside it", "ratio", "difference", "peak MB", "peak / input"
        for column in columns:
            table.add_column(column, justify="right")
        for m in result.measurements:
            peak = "" if m.peak_bytes is None else f"{m.peak_bytes / 1e6:.1f}"
            share = "" if m.peak_bytes is None else f"{m.peak_bytes / result.input_bytes:.2f}"
            table.add_row(
                m.name,
                f"{m.milliseconds:.3g}",
                f"{m.beside:.3g}",
                f"{m.ratio:.2f}",
                f"{m.difference:.1e}",
                peak,
                share,
            )
        console.print(table)
        if result.bound_milliseconds is not None:
            distance = result.measurements[0].milliseconds / result.bound_milliseconds
            console.print(
                f"Roofline: {result.bound_milliseconds:.3g} ms to read the predictions and write "
                f"the gradient at the bandwidth measured; {first} takes {distance:.1f} times that."
            )
        console.print()
