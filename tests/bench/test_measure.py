"""How the benchmark measures."""

import torch
from fresh_process import measures_memory, printed_by

from detloss.bench.measure import Case, compare


def test_runners_take_turns_and_differences_are_relative():
    order = []

    def runner(name, value):
        def run():
            order.append(name)
            return [torch.tensor([value, 0.0])]

        return run

    case = Case("toy", {"one": runner("one", 4.0), "other": runner("other", 5.0)}, input_bytes=8)
    one, other = compare(case, torch.device("cpu"), seconds=0)
    assert order == ["one", "other"] * 6
    assert (one.difference, other.difference) == (0, 0.25)


PEAK = """
import torch
from detloss.bench.measure import resident_peak

print(resident_peak(lambda: [torch.ones(16 * 2**20).sum()]))
"""


@measures_memory
def test_the_peak_counts_what_is_freed_again():
    assert 64 * 2**20 <= printed_by(PEAK) < 80 * 2**20
