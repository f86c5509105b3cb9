"""Timing in turns, and peak memory in a fresh process."""

import ctypes
import json
import os
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

from detloss.tensors import HALF_TYPES

Run = Callable[[], Any]
"""Computes what is measured and returns what came out."""

SETTLING, COUNTED = 2, 2
"""Runs of a turn: the first find the memory and the caches as the other runner left them."""
LEAST_TURNS = 3


@dataclass(frozen=True)
class Case:
    """One task that several packages do.

    Attributes:
        title: What is computed, on how much.
        runners: Name -> how that package does it; each is timed beside the first, detloss.
        input_bytes: Size of the predictions, the unit of the memory column.
        least_bytes: Bytes that any implementation must move, for the roofline; 0 where nobody says.
        tensors: Of what a run returned, the results that all runners must agree on.
        loss: detloss's loss of the predictions, for a compiler; None where there is no gradient.
        predictions: What that is called with.
    """

    title: str
    runners: dict[str, Run]
    input_bytes: int
    least_bytes: int = 0
    tensors: Callable[[Any], Sequence[Tensor]] = list
    loss: Callable[..., Tensor] | None = None
    predictions: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Measurement:
    """What one runner of a case came to in one process.

    Attributes:
        name: The runner.
        milliseconds: Median of a run.
        ratio: How many times that of the first runner, run in turns with it.
        difference: Largest difference from the first runner's results, relative to their largest.
        cured: The median after `cure`, in the same process; None where there is nothing to cure.
        cured_ratio: The ratio after it.
    """

    name: str
    milliseconds: float
    ratio: float
    difference: float
    cured: float | None = None
    cured_ratio: float | None = None

    def first(self, name: str) -> "Measurement":
        """That of the first runner, run in turns with this one."""
        cured = self.cured / self.cured_ratio if self.cured and self.cured_ratio else None
        one = None if cured is None else 1.0
        return Measurement(name, self.milliseconds / self.ratio, 1.0, 0.0, cured, one)


def compare(case: Case, name: str, device: torch.device, *, seconds: float = 4.0) -> Measurement:
    """Times that runner in turns with the first, for about that long and at least three turns.

    What ran before decides which caches are warm and which memory is there. So of the four runs of
    a turn only the last two count, since who uses one package has not run the other just before;
    and a process should compare one pair, so that no ratio depends on what else is installed.
    On a CPU it is timed as the process started, and once more after `cure`.

    Raises:
        ValueError: If the two compute different losses, whose times say nothing.
    """
    first = next(iter(case.runners))
    pair = case.runners[first], case.runners[name]
    ours, theirs = ([r.detach().double().cpu() for r in case.tensors(run())] for run in pair)
    if case.loss is not None and difference(ours[:1], theirs[:1]) > _agreement(case):
        raise ValueError(
            f"{name} must compute {case.title}, whose value is {ours[0].item():g}, got "
            f"{theirs[0].item():g}"
        )
    differs = difference(ours, theirs)
    milliseconds, ratio = _medians(*pair, device, seconds)
    if device.type != "cpu":
        return Measurement(name, milliseconds, ratio, differs)
    cure()
    return Measurement(name, milliseconds, ratio, differs, *_medians(*pair, device, seconds))


def _agreement(case: Case) -> float:
    """How far, relatively, the losses of two runners may lie apart: a peer may add up in half."""
    return 1e-2 if any(values.dtype in HALF_TYPES for values in case.predictions) else 1e-4


def cure() -> None:
    """Has every thread run a function that ends the bad state of a process, if it is in one.

    `detloss.kernels.memory` says what that state is, in which `log1p` and `softplus` take up to 20
    times as long, and ends it too. What is timed before and after this should be the same.
    """
    torch.lgamma(torch.ones(torch.get_num_threads() * 2**16))  # enough for every thread


def _medians(one: Run, other: Run, device: torch.device, seconds: float) -> tuple[float, float]:
    """The median of `other` in milliseconds, and how many times that of `one` it is."""
    give_back_freed_memory()
    ours, theirs = _in_turns(one, other, device, seconds)
    median = statistics.median(theirs)
    return 1000 * median, median / statistics.median(ours)


def _in_turns(
    one: Run, other: Run, device: torch.device, seconds: float
) -> tuple[list[float], list[float]]:
    """The times of each that count, in seconds."""
    times: tuple[list[float], list[float]] = [], []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times[0]) < LEAST_TURNS * COUNTED:
        for run, counted in zip((one, other), times, strict=True):
            turn = [seconds_of(run, device) for _ in range(SETTLING + COUNTED)]
            counted += turn[SETTLING:]
    return times


def seconds_of(
    run: Run, device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> float:
    """How long one run takes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - began


def difference(expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
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

    best = min(seconds_of(copy, device) for _ in range(8))
    return 2 * source.nbytes / best


def in_fresh_process(*arguments: object, compiler_cache: str | None = None) -> Any:
    """What `detloss.bench.process` prints for these arguments.

    What earlier cases leave in the heap makes some packages up to three times as fast. A
    `compiler_cache` is the folder in which PyTorch's compiler keeps what it wrote.

    Raises:
        RuntimeError: If the process fails.
    """
    command = [sys.executable, "-m", "detloss.bench.process", *map(str, arguments)]
    cache = {"TORCHINDUCTOR_CACHE_DIR": compiler_cache} if compiler_cache else {}
    environment = os.environ | cache
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def resident_peak(run: Run) -> int:
    """How far this process's resident memory rises while `run` runs, in bytes. Linux only."""
    status = Path("/proc/self/status")
    give_back_freed_memory()  # it would hide what `run` needs
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from now
    before = _kilobytes(status, "VmRSS")
    run()
    return 1024 * (_kilobytes(status, "VmHWM") - before)


def give_back_freed_memory() -> None:
    """Makes the C library return to the system what is free, where it can."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def _kilobytes(status: Path, key: str) -> int:
    (line,) = [line for line in status.read_text().splitlines() if line.startswith(f"{key}:")]
    return int(line.split()[1])
