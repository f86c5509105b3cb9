"""How the benchmark measures."""

import torch
from fresh_process import measures_memory, printed_by

from detloss.bench import measure
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
    turns = ["one"] * 4 + ["two"] * 4, ["one"] * 4 + ["three"] * 4
    assert order == ["one", "two", *turns[0] * 3, "one", "three", *turns[1] * 3]
    assert (one.difference, two.difference, three.difference) == (0, 0.25, 0)
    assert one.ratio == 1


def test_a_ratio_is_to_the_first_runner_in_the_same_turns_without_their_first_runs(monkeypatch):
    runners = dict.fromkeys(("one", "two", "three"), lambda: [torch.ones(1)])
    beside_two, beside_three = [90, 70, 1, 1, 80, 60, 2, 2], [50, 90, 3, 3, 60, 80, 12, 12]
    seconds = iter(beside_two * 3 + beside_three * 3)
    monkeypatch.setattr(measure, "_time", lambda run, device: next(seconds))
    found = compare(Case("toy", runners, 4), torch.device("cpu"), seconds=0)
    assert [m.milliseconds for m in found] == [2000, 2000, 12000]
    assert [m.ratio for m in found] == [1, 2, 4]
    assert [m.beside for m in found] == [2000, 1000, 3000]


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
