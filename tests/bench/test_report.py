"""Which cases run, in which processes, and how their numbers are printed."""

import pytest
import torch
from rich.console import Console

from detloss.bench import report
from detloss.bench.measure import Measurement
from detloss.bench.report import CaseResult, chosen, machine, markdown, medians, run_cases, tables

CPU = torch.device("cpu")


def test_a_case_that_is_named_is_alone_and_other_names_are_parts():
    cases = ["focal", "focal-yolo", "match-10", "match-100"]
    assert chosen(["focal"], cases) == ["focal"]
    assert chosen(["focal-", "match"], cases) == ["focal-yolo", "match-10", "match-100"]
    assert chosen(["match-100", "focal"], cases) == ["focal", "match-100"]
    assert chosen([""], cases) == cases


def test_no_case_is_an_error_that_names_them():
    with pytest.raises(ValueError, match="only must name some of focal, giou, got nonsense"):
        chosen(["nonsense"], ["focal", "giou"])


def test_every_peer_is_beside_the_first_in_processes_of_its_own(monkeypatch):
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

    monkeypatch.setattr(report, "in_fresh_process", in_fresh_process)
    toy, lone = run_cases(["toy", "lone"], CPU, processes=2, memory=False, show=False)
    found = {
        name: [(m.milliseconds, m.ratio) for m in runs] for name, runs in toy.measurements.items()
    }
    assert found == {
        "one": [(4.0, 1.0)] * 2 + [(6.0, 1.0)] * 2,  # beside the second, beside the third
        "two": [(8.0, 2.0)] * 2,
        "three": [(60.0, 10.0)] * 2,
    }
    assert [m.milliseconds for m in lone.measurements["one"]] == [3.0, 3.0]
    assert ran == [
        ("describe", "toy"),
        *[("times", "toy", "two")] * 2,
        *[("times", "toy", "three")] * 2,
        ("describe", "lone"),
        *[("times", "lone", "one")] * 2,
    ]


def result(**runners):
    """Of a case that three processes timed."""
    measurements = {
        name: [Measurement(name, 10.0 * i, ratio, 1e-7, 9.0 * i, ratio + 1) for i in (1, 2, 4)]
        for name, ratio in runners.items()
    }
    peaks = {name: 2_000_000 * (i + 1) for i, name in enumerate(runners)}
    return CaseResult("toy", "a toy", "here", 1_000_000, 5.0, measurements, peaks)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_of_a_readme_has_medians():
    results = [result(detloss=1, torchvision=7, fvcore=8, kornia=9), result(detloss=1)]
    where, empty, head, rule, full, alone = markdown(medians(results)).splitlines()
    assert (where, empty) == ("here", "")
    assert cells(head)[1:3] == ["detloss", "torchvision"]
    assert set(rule) == {"|", "-"}
    peers = "fvcore 8x, kornia 9x"
    assert cells(full) == ["a toy", "20 ms", "7x", peers, "18 ms, 8x", "2 MB, 4 MB"]
    assert cells(alone) == ["a toy", "20 ms", "", "", "18 ms", "2 MB"]


def test_the_tables_have_the_least_and_the_most_too_and_the_bound():
    console = Console(width=200, record=True)
    console.print(tables([result(detloss=1, torchvision=7)]))
    text = console.export_text()
    assert "toy: a toy (here)" in text
    assert "20 (10-40)" in text
    assert "18 (9-36)" in text
    assert "1.0e-07" in text
    assert "5 ms to read the predictions" in text
    assert "detloss takes 4.0 times that" in text


def test_a_time_says_which_release_and_which_machine():
    assert machine(CPU).startswith(f"PyTorch {torch.__version__}, CPU with ")
    assert machine(torch.device("meta")) == f"PyTorch {torch.__version__}, meta"
