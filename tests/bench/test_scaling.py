"""The curves against size, at their smallest, and what is called a jump."""

import pytest
import torch

from detloss.bench import scaling
from detloss.bench.scaling import SWEEPS, Sweep, draw, jumps, time_curve, time_sweeps

CPU = torch.device("cpu")
CURVES = [(name, curve) for name, sweep in SWEEPS.items() for curve in sweep.curves]


@pytest.mark.parametrize(("name", "curve"), CURVES, ids="-".join)
def test_every_curve_has_a_case_of_its_size(name, curve):
    size = SWEEPS[name].sizes[0]
    case = SWEEPS[name].curves[curve](size, torch.device("meta"))
    assert "detloss" in case.runners


@pytest.mark.parametrize("anchors", SWEEPS["anchors"].sizes)
def test_the_image_has_about_as_many_anchors_as_asked_for(anchors):
    """From 10,000 to the next whole cells there are 9% more: half of that is the nearest."""
    case = SWEEPS["anchors"].curves["max_iou"](anchors, torch.device("meta"))
    assert case.input_bytes / 16 == pytest.approx(anchors, rel=0.045)


def test_a_curve_is_the_least_time_at_each_size(monkeypatch):
    seconds = iter([3.0, 1.0, 2.0, 5.0, 6.0, 4.0])
    monkeypatch.setattr(scaling, "SECONDS", 0)
    monkeypatch.setattr(scaling, "seconds_of", lambda run, device, clock: next(seconds))
    case = SWEEPS["anchors"].curves["ciou"](10, CPU)
    monkeypatch.setitem(SWEEPS, "toy", Sweep([1, 2], "", {"ciou": lambda size, on: case}))
    assert time_curve("toy", CPU, "ciou") == [1000.0, 4000.0]


def test_every_curve_is_timed_in_a_process_of_its_own(monkeypatch):
    ran = []

    def in_fresh_process(task, name, device, threads, curve):
        ran.append((name, curve))
        return [1.0]

    monkeypatch.setattr(scaling, "in_fresh_process", in_fresh_process)
    times = time_sweeps(CPU)
    assert ran == CURVES
    assert times["classes"]["focal"] == [1.0]


def test_a_jump_is_where_time_grows_half_again_as_much_as_size():
    sizes = SWEEPS["classes"].sizes  # 1, 20, 80, 1203
    assert jumps({"classes": {"focal": sizes}}) == []
    assert jumps({"classes": {"focal": [1.0, 1.0, 5.9, 5.9]}}) == []
    assert jumps({"classes": {"focal": [1.0, 1.0, 6.1, 6.1]}}) == [
        "focal: 80 classes take 6.1 times as long as 20, and are 4 times as many"
    ]


def test_the_picture_has_a_panel_a_sweep_and_is_small(tmp_path):
    times = {
        name: {curve: [float(size) for size in sweep.sizes] for curve in sweep.curves}
        for name, sweep in SWEEPS.items()
    }
    draw(times, tmp_path / "scaling.svg", "here")
    assert (tmp_path / "scaling.svg").read_text().count('id="axes_') == len(SWEEPS)
    draw(times, tmp_path / "scaling.png", "here")
    assert (tmp_path / "scaling.png").stat().st_size < 150_000
