"""How the benchmark measures."""

import pytest
import torch
from fresh_process import measures_memory, printed_by

from detloss.bench.measure import Case, compare


def test_each_runner_takes_turns_with_the_first_alone_and_differences_are_relative():
    order = []

    def runner(name, value):
        def run():
            order.append(name)
            return [torch.tensor([value, 0.0])]

        return run

    runners = {"one": runner("one", 4.0), "two": runner("two", 5.0), "three": runner("three", 4.0)}
    one, two, three = compare(Case("toy", runners, 8), torch.device("cpu"), seconds=0)
    assert order == ["one", "two"] * 6 + ["one", "three"] * 6
    assert (one.difference, two.difference, three.difference) == (0, 0.25, 0)
    assert one.ratio == 1
    assert one.beside == one.milliseconds
    assert two.beside == pytest.approx(two.milliseconds / two.ratio)


def test_a_runner_alone_is_timed_too():
    case = Case("toy", {"one": lambda: [torch.ones(1)]}, input_bytes=4)
    (one,) = compare(case, torch.device("cpu"), seconds=0)
    assert one.milliseconds > 0


PEAK = """
import torch
from detloss.bench.measure import resident_peak

print(resident_peak(lambda: [torch.ones(16 * 2**20).sum()]))
"""


@measures_memory
def test_the_peak_counts_what_is_freed_again():
    assert 64 * 2**20 <= printed_by(PEAK) < 80 * 2**20
