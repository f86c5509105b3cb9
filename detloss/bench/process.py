"""The fresh process in which a case is timed, or the peak memory of one of its runners taken.

Run as ``python -m detloss.bench.process CASE DEVICE THREADS [RUNNER]``.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

import torch

from detloss.bench.cases import CASES
from detloss.bench.measure import compare, resident_peak


def main(arguments: Sequence[str]) -> None:
    """Prints the measurements of a case, or the peak of one of its runners, in bytes, as JSON."""
    case, device_name, threads, *runners = arguments
    torch.set_num_threads(int(threads))
    device = torch.device(device_name)
    print(json.dumps(peak(case, runners[0], device) if runners else times(case, device)))


def times(case: str, device: torch.device) -> dict[str, object]:
    """What `CaseResult` has of a case."""
    built = CASES[case](device, 1.0)
    return {
        "title": built.title,
        "input_bytes": built.input_bytes,
        "least_bytes": built.least_bytes,
        "measurements": [asdict(m) for m in compare(built, device)],
    }


def peak(case: str, runner: str, device: torch.device) -> int:
    """Peak memory of a runner, above what its inputs take."""
    run = CASES[case](device, 1.0).runners[runner]
    run()  # what a first call loads or compiles is nobody's peak
    if device.type != "cuda":
        return resident_peak(run)
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


if __name__ == "__main__":
    main(sys.argv[1:])
