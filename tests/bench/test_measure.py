"""How the benchmark measures."""

import pytest
import torch
from fresh_process import measures_memory, printed_by

from detloss.bench import measure
from detloss.bench.measure import Case, Measurement, compare, cure, seconds_of

CPU, META = torch.device("cpu"), torch.device("meta")


def test_runners_take_turns_of_four_and_differences_are_relative(monkeypatch):
    order = []

    def runner(name, value):
        def run():
            order.append(name)
            return [torch.tensor([value, 0.0])]

        return run

    monkeypatch.setattr(measure, "cure", lambda: order.append("cure"))
    case = Case("toy", {"one": runner("one", 4.0), "two": runner("two", 5.0)}, input_bytes=8)
    assert compare(case, "two", CPU, seconds=0).difference == 0.25
    turns = (["one"] * 4 + ["two"] * 4) * 3
    assert order == ["one", "two", *turns, "cure", *turns]
    assert compare(case, "one", CPU, seconds=0).difference == 0


def losses(*values, dtype=torch.float32):
    """A case of a loss on which its runners, "one" and "two", say these values."""
    runners = [lambda value=value: [torch.tensor(value, dtype=dtype)] for value in values]
    return Case(
        "toy",
        dict(zip(("one", "two"), runners, strict=True)),
        input_bytes=4,
        loss=torch.sum,
        predictions=[torch.zeros(1, dtype=dtype)],
    )


def test_another_loss_is_not_timed():
    assert compare(losses(1.0, 1.00009), "two", CPU, seconds=0).difference > 0
    assert compare(losses(1.0, 1.007, dtype=torch.bfloat16), "two", CPU, seconds=0).difference > 0
    with pytest.raises(ValueError, match="two must compute toy, whose value is 1, got 1.0002"):
        compare(losses(1.0, 1.0002), "two", CPU, seconds=0)


def test_a_ratio_is_to_the_first_runner_without_the_first_runs_of_a_turn(monkeypatch):
    case = Case("toy", dict.fromkeys(("one", "two"), lambda: [torch.ones(1)]), input_bytes=4)
    before, after = [50, 90, 3, 3, 60, 80, 12, 12], [50, 90, 2, 2, 60, 80, 10, 10]
    seconds = iter(before * 3 + after * 3)
    monkeypatch.setattr(measure, "seconds_of", lambda run, device: next(seconds))
    two = compare(case, "two", CPU, seconds=0)
    assert two == Measurement("two", 12000, 4, 0.0, cured=10000, cured_ratio=5)
    assert two.first("one") == Measurement("one", 3000, 1, 0.0, cured=2000, cured_ratio=1)


def test_there_is_nothing_to_cure_elsewhere():
    case = Case("toy", {"one": lambda: [torch.ones(1)]}, input_bytes=4)
    found = compare(case, "one", META, seconds=0)
    assert found.cured is found.cured_ratio is found.first("one").cured is None


def test_what_is_compared_is_made_of_what_came_out():
    case = Case(
        "toy", {"one": lambda: 2.0, "two": lambda: 3.0}, 4, tensors=lambda x: [torch.tensor(x)]
    )
    assert compare(case, "two", CPU, seconds=0).difference == 0.5


def test_the_cure_has_work_for_every_thread(monkeypatch):
    sizes = []
    monkeypatch.setattr(torch, "lgamma", lambda values: sizes.append(len(values)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    cure()
    assert sizes[0] >= 3 * 32768, "PyTorch gives a thread at least so many values"


def test_a_gpu_is_waited_for_before_and_after_a_run(monkeypatch):
    order = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: order.append("wait"))
    assert seconds_of(lambda: order.append("run"), torch.device("cuda")) >= 0
    assert order == ["wait", "run", "wait"]


PEAK = """
import torch
from detloss.bench.measure import resident_peak

print(resident_peak(lambda: [torch.ones(16 * 2**20).sum()]))
"""


@measures_memory
def test_the_peak_counts_what_is_freed_again():
    assert 64 * 2**20 <= printed_by(PEAK) < 80 * 2**20
