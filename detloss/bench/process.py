"""The fresh process in which a case is looked at: two runners timed, or the peak of one taken.

Run as ``python -m detloss.bench.process TASK CASE DEVICE THREADS [ARGUMENT]``.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch

from detloss.bench.cases import TIMED
from detloss.bench.compiled import compile_case
from detloss.bench.measure import compare, resident_peak
from detloss.bench.scaling import time_curve


def main(arguments: Sequence[str]) -> None:
    """Prints as JSON what one of `TASKS` finds."""
    task, case, device, threads, *argument = arguments
    torch.set_num_threads(int(threads))
    print(json.dumps(TASKS[task](case, torch.device(device), *argument)))


def describe(case: str, device: torch.device) -> dict[str, object]:
    """What is computed, on how much, and the names of the runners."""
    built = TIMED[case](device, 1.0)
    return {
        "title": built.title,
        "runners": list(built.runners),
        "input_bytes": built.input_bytes,
        "least_bytes": built.least_bytes,
        "has_loss": built.loss is not None,
    }


def times(case: str, device: torch.device, runner: str) -> dict[str, object]:
    """The measurement of a runner beside the first."""
    return asdict(compare(TIMED[case](device, 1.0), runner, device))


def peak(case: str, device: torch.device, runner: str) -> int:
    """Peak memory of a runner, above what its inputs take."""
    run = TIMED[case](device, 1.0).runners[runner]
    run()  # what a first call loads or compiles is nobody's peak
    if device.type != "cuda":
        return resident_peak(run)
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def compiled(case: str, device: torch.device) -> dict[str, object]:
    """What PyTorch's compiler makes of detloss's loss."""
    return asdict(compile_case(TIMED[case](device, 1.0), device))


TASKS: dict[str, Callable[..., object]] = {
    "describe": describe,
    "times": times,
    "peak": peak,
    "compiled": compiled,
    "curve": time_curve,
}


if __name__ == "__main__":
    main(sys.argv[1:])
