"""Running the cases and printing what they came to."""

import io
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from rich import box
from rich.console import Console, Group
from rich.table import Table

from detloss.bench.measure import Measurement, bandwidth, in_fresh_process

Setting = tuple[str, torch.device, int]
"""Case, device, threads."""


@dataclass(frozen=True)
class CaseResult:
    """A case and what its runners came to.

    Attributes:
        name: The case.
        title: What was computed, on how much.
        machine: Release of PyTorch, processor, threads.
        input_bytes: Size of the predictions.
        bound_milliseconds: The bytes that have to be moved over the measured bandwidth, or None.
        measurements: Runner -> one a process, detloss first.
        peaks: Runner -> peak memory above what the inputs take, in bytes, or None.
    """

    name: str
    title: str
    machine: str
    input_bytes: int
    bound_milliseconds: float | None
    measurements: dict[str, list[Measurement]]
    peaks: dict[str, int | None]


def machine(device: torch.device) -> str:
    """What a time depends on beside the case."""
    release = f"PyTorch {torch.__version__}"
    if device.type == "cuda":
        return f"{release}, {torch.cuda.get_device_name(device)}"
    if device.type != "cpu":
        return f"{release}, {device}"
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"{release}, CPU with {instructions}, threads: {torch.get_num_threads()}"


def chosen(only: Sequence[str], cases: Iterable[str]) -> list[str]:
    """The cases that are named in `only`; a name that none has stands for those that contain it.

    Raises:
        ValueError: If there are none.
    """
    cases = list(cases)
    exact, parts = set(only) & set(cases), set(only) - set(cases)
    found = [name for name in cases if name in exact or any(part in name for part in parts)]
    if not found:
        raise ValueError(f"only must name some of {', '.join(cases)}, got {', '.join(only)}")
    return found


def run_cases(
    names: Sequence[str], device: torch.device, *, processes: int, memory: bool, show: bool
) -> list[CaseResult]:
    """Times the cases, each pair of runners in that many processes."""
    threads = torch.get_num_threads()
    bytes_a_second = bandwidth(device)
    results = []
    for name in names:
        if show:
            print(f"{name} ...", file=sys.stderr)
        setting = name, device, threads
        found = in_fresh_process("describe", *setting)
        runners = found["runners"]
        least = found["least_bytes"]
        results.append(
            CaseResult(
                name,
                found["title"],
                machine(device),
                found["input_bytes"],
                1000 * least / bytes_a_second if least else None,
                _measurements(setting, *runners, processes=processes),
                {runner: _peak(setting, runner) for runner in runners} if memory else {},
            )
        )
    return results


def _measurements(
    setting: Setting, first: str, *others: str, processes: int
) -> dict[str, list[Measurement]]:
    """The first runner and the others, each beside the first in processes of their own."""
    beside = {
        name: [Measurement(**in_fresh_process("times", *setting, name)) for _ in range(processes)]
        for name in others or [first]
    }
    return {first: [m.first(first) for found in beside.values() for m in found]} | beside


def _peak(setting: Setting, runner: str) -> int | None:
    """The peak of a runner, None where it fails, as on a CPU of a system other than Linux."""
    try:
        peak: int = in_fresh_process("peak", *setting, runner)
    except RuntimeError:
        return None
    return peak


def tables(results: Sequence[CaseResult]) -> Group:
    """A table a case, with the times before and after the cure."""
    return Group(*(part for result in results for part in (_table(result), _bound(result), "")))


def _table(result: CaseResult) -> Table:
    """A row a runner; several processes as their median, least and most."""
    title = f"{result.name}: {result.title} ({result.machine})"
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True, min_width=max(map(len, result.measurements)))
    columns = "ms", "ratio", "cured ms", "ratio", "difference", "peak MB", "peak / input"
    for column in columns:
        table.add_column(column, justify="right")
    for name, found in result.measurements.items():
        peak = result.peaks.get(name)
        table.add_row(
            name,
            *(_spread(found, of) for of in ("milliseconds", "ratio", "cured", "cured_ratio")),
            f"{max(m.difference for m in found):.1e}",
            "" if peak is None else f"{peak / 1e6:.1f}",
            "" if peak is None else f"{peak / result.input_bytes:.2f}",
        )
    return table


def _bound(result: CaseResult) -> str:
    """How far detloss is from what the memory allows."""
    if result.bound_milliseconds is None:
        return ""
    (first, found), *_ = result.measurements.items()
    distance = statistics.median(m.milliseconds for m in found) / result.bound_milliseconds
    return (
        f"Roofline: {result.bound_milliseconds:.3g} ms to read the predictions and write the "
        f"gradient at the bandwidth measured; {first} takes {distance:.1f} times that."
    )


def _spread(found: Sequence[Measurement], attribute: str) -> str:
    """The median of that attribute, and the least and the most where there are several."""
    values = sorted(_values(found, attribute))
    if len(values) < 2:
        return _median(found, attribute)
    return f"{_median(found, attribute)} ({values[0]:.3g}-{values[-1]:.3g})"


def medians(results: Sequence[CaseResult]) -> Table:
    """The table of the README, a row a case: medians of the processes."""
    heading = ", ".join(dict.fromkeys(result.machine for result in results))
    table = Table(title=heading, title_justify="left")
    for column in ("", "detloss", "torchvision", "others", "after the cure", "peak memory"):
        table.add_column(column)
    for result in results:
        others = dict(result.measurements)
        ours, theirs = others.pop("detloss"), others.pop("torchvision", [])
        cured = [_median(ours, "cured", " ms"), _median(theirs, "cured_ratio", "x")]
        peaks = [result.peaks.get("detloss"), result.peaks.get("torchvision")]
        table.add_row(
            result.title,
            _median(ours, "milliseconds", " ms"),
            _median(theirs, "ratio", "x"),
            ", ".join(f"{name} {_median(found, 'ratio', 'x')}" for name, found in others.items()),
            ", ".join(filter(None, cured)),
            ", ".join(f"{peak / 1e6:.0f} MB" for peak in peaks if peak is not None),
        )
    return table


def markdown(table: Table) -> str:
    """A table as it stands in a README, under its title."""
    title, table.title, table.box = table.title, None, box.MARKDOWN
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(table)
    lines = (line.strip() for line in console.export_text().splitlines())
    return "\n".join([f"{title}\n", *filter(None, lines)])


def _median(found: Sequence[Measurement], attribute: str, unit: str = "") -> str:
    """Of that attribute; nothing where it was not measured."""
    values = _values(found, attribute)
    return f"{statistics.median(values):.3g}{unit}" if values else ""


def _values(found: Sequence[Measurement], attribute: str) -> list[float]:
    return [value for m in found if (value := getattr(m, attribute)) is not None]
