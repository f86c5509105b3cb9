"""Timing in turns, and peak memory in a fresh process."""

import ctypes
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Run = Callable[[], Sequence[Tensor]]
"""Computes what is measured and returns the results that all runners must agree on."""


@dataclass(frozen=True)
class Case:
    """One task that several packages do.

    Attributes:
        title: What is computed, on how much.
        runners: Name -> how that package does it; detloss first.
        input_bytes: Size of the predictions, the unit of the memory column.
        least_bytes: Bytes that any implementation must move, for the roofline; 0 where nobody says.
    """

    title: str
    runners: dict[str, Run]
    input_bytes: int
    least_bytes: int = 0


@dataclass(frozen=True)
class Measurement:
    """What one runner of a case came to.

    Attributes:
        name: The runner.
        milliseconds: Median of a run.
        ratio: How many times the first runner's time that is.
        difference: Largest difference from the first runner's results, relative to their largest.
        peak_bytes: Memory above what the inputs take, or None if it was not measured.
    """

    name: str
    milliseconds: float
    ratio: float
    difference: float
    peak_bytes: int | None = None


def compare(case: Case, device: torch.device, *, seconds: float = 4.0) -> list[Measurement]:
    """Times the runners of `case` in turns, for about that long and at least five rounds."""
    results = {
        name: [r.detach().double().cpu() for r in run()] for name, run in case.runners.items()
    }
    times: dict[str, list[float]] = {name: [] for name in case.runners}
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times[next(iter(times))]) < 5:
        for name, run in case.runners.items():
            times[name].append(_time(run, device))
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    first = next(iter(medians))
    return [
        Measurement(
            name,
            milliseconds=1000 * median,
            ratio=median / medians[first],
            difference=_difference(results[first], results[name]),
        )
        for name, median in medians.items()
    ]


def _time(run: Run, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _difference(expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    """The largest difference of any result, relative to the largest value of that result."""
    return max(
        float((one - other).abs().max() / one.abs().max().clamp(min=1e-12)) if one.numel() else 0.0
        for one, other in zip(expected, got, strict=True)
    )


def bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written, of copying memory that is there already."""
    source = torch.zeros(64 * 2**20, device=device)
    target = torch.zeros_like(source)

    def copy() -> Sequence[Tensor]:
        return [target.copy_(source)]

    best = min(_time(copy, device) for _ in range(8))
    return 2 * source.nbytes / best


def in_fresh_process(*arguments: object) -> Any:
    """What `detloss.bench.process` prints for these arguments.

    What earlier cases leave in the heap makes some packages up to three times as fast.

    Raises:
        RuntimeError: If the process fails.
    """
    command = [sys.executable, "-m", "detloss.bench.process", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def resident_peak(run: Run) -> int:
    """How far this process's resident memory rises while `run` runs, in bytes. Linux only."""
    status = Path("/proc/self/status")
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # memory that is free already would hide what `run` needs
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from now
    before = _kilobytes(status, "VmRSS")
    run()
    return 1024 * (_kilobytes(status, "VmHWM") - before)


def _kilobytes(status: Path, key: str) -> int:
    (line,) = [line for line in status.read_text().splitlines() if line.startswith(f"{key}:")]
    return int(line.split()[1])
