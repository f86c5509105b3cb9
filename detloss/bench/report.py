"""Running the cases and printing what they came to."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.table import Table

from detloss.bench.cases import CASES
from detloss.bench.measure import Measurement, bandwidth, compare, peak_memory


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
        case = CASES[name](device, 1.0)
        if show:
            print(f"{name} ...", file=sys.stderr)
        measurements = compare(case, device)
        if memory:
            measurements = [
                replace(m, peak_bytes=peak_memory(name, m.name, device, threads))
                for m in measurements
            ]
        bound = 1000 * case.least_bytes / bytes_a_second if case.least_bytes else None
        results.append(
            CaseResult(
                name, case.title, str(device), threads, case.input_bytes, bound, measurements
            )
        )
    return results


def report(console: Console, results: Sequence[CaseResult]) -> None:
    """A table a case: times, ratios to detloss, differences, peaks, and the bound."""
    for result in results:
        table = Table(
            "",
            title=f"{result.name}: {result.title} ({result.device}, {result.threads} threads)",
            title_justify="left",
        )
        for column in ("ms", "times detloss", "difference", "peak MB", "peak / input"):
            table.add_column(column, justify="right")
        for m in result.measurements:
            peak = "" if m.peak_bytes is None else f"{m.peak_bytes / 1e6:.1f}"
            share = "" if m.peak_bytes is None else f"{m.peak_bytes / result.input_bytes:.2f}"
            table.add_row(
                m.name,
                f"{m.milliseconds:.3g}",
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
                f"the gradient at the bandwidth measured; detloss takes {distance:.1f} times that."
            )
        console.print()
