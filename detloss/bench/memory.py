"""The fresh process in which a runner's peak memory is taken: see `measure.peak_memory`."""

import json
import sys
from collections.abc import Sequence

import torch

from detloss.bench.cases import CASES
from detloss.bench.measure import resident_peak


def main(arguments: Sequence[str]) -> None:
    """Prints the peak of one runner of one case, in bytes."""
    case, runner, device_name, threads = arguments
    torch.set_num_threads(int(threads))
    device = torch.device(device_name)
    CASES[case](device, 0.01).runners[runner]()  # what a first call loads is nobody's peak
    run = CASES[case](device, 1.0).runners[runner]
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        print(json.dumps(torch.cuda.max_memory_allocated(device) - before))
    else:
        print(json.dumps(resident_peak(run)))


if __name__ == "__main__":
    main(sys.argv[1:])
