"""How the benchmark measures."""

import torch
from fresh_process import measures_memory, printed_by

from detloss.bench import measure, report
from detloss.bench.measure import Case, compare

CPU = torch.device("cpu")


def test_runners_take_turns_of_four_and_differences_are_relative():
    order = []

    def runner(name, value):
        def run():
            order.append(name)
            return [torch.tensor([value, 0.0])]

        return run

    case = Case("toy", {"one": runner("one", 4.0), "two": runner("two", 5.0)}, input_bytes=8)
    assert compare(case, "two", CPU, seconds=0).difference == 0.25
    assert order == ["one", "two", *(["one"] * 4 + ["two"] * 4) * 3]
    assert compare(case, "one", CPU, seconds=0).difference == 0


def test_a_ratio_is_to_the_first_runner_without_the_first_runs_of_a_turn(monkeypatch):
    case = Case("toy", dict.fromkeys(("one", "two"), lambda: [torch.ones(1)]), input_bytes=4)
    seconds = iter([50, 90, 3, 3, 60, 80, 12, 12] * 3)
    monkeypatch.setattr(measure, "_time", lambda run, device: next(seconds))
    two = compare(case, "two", CPU, seconds=0)
    assert (two.name, two.milliseconds, two.ratio, two.beside) == ("two", 12000, 4, 3000)


def test_every_peer_is_beside_the_first_in_a_process_of_its_own(monkeypatch):
    runners = {"toy": ["one", "two", "three"], "lone": ["one"]}
    ran = []

    def in_fresh_process(task, name, device, threads, *runner):
        ran.append((task, name, *runner))
        if task == "describe":
            described = {"title": "a toy", "input_bytes": 4, "least_bytes": 0}
            return {"runners": runners[name], **described}
        (peer,) = runner
        milliseconds, ratio = {"one": (3.0, 1.5), "two": (8.0, 2.0), "three": (60.0, 10.0)}[peer]
        return {"name": peer, "milliseconds": milliseconds, "ratio": ratio, "difference": 0.0}

    monkeypatch.setattr(report, "CASES", runners)
    monkeypatch.setattr(report, "in_fresh_process", in_fresh_process)
    toy, lone = report.run_cases(["toy", "lone"], CPU, memory=False, show=False)
    assert [(m.name, m.milliseconds, m.ratio) for m in toy.measurements] == [
        ("one", 5.0, 1.0),  # 4 beside the second, 6 beside the third
        ("two", 8.0, 2.0),
        ("three", 60.0, 10.0),
    ]
    assert [(m.name, m.milliseconds, m.ratio) for m in lone.measurements] == [("one", 2.0, 1.0)]
    assert ran == [
        ("describe", "toy"),
        ("times", "toy", "two"),
        ("times", "toy", "three"),
        ("describe", "lone"),
        ("times", "lone", "one"),
    ]


PEAK = """
import torch
from detloss.bench.measure import resident_peak

print(resident_peak(lambda: [torch.ones(16 * 2**20).sum()]))
"""


@measures_memory
def test_the_peak_counts_what_is_freed_again():
    assert 64 * 2**20 <= printed_by(PEAK) < 80 * 2**20
