"""The ``detloss`` command."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from detloss.bench import scaling
from detloss.cli import app
from detloss.registry import SECTIONS

CONFIG = Path(__file__).parents[1] / "configs" / "retinanet.yaml"


@pytest.fixture
def call(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


def test_list_names_every_part(call):
    printed = call("list").output
    for section, registry in SECTIONS.items():
        assert f"{section}:" in printed
        for name in registry.names():
            assert name in printed


@pytest.mark.parametrize("width", [80, 120])
def test_list_has_papers_and_what_a_config_takes_and_cuts_no_name(width, call, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    printed = call("list").output
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= width
    rows = {line.split()[0]: line for line in printed.splitlines() if line.strip()}
    assert "Rezatofighi 2019" in rows["giou"]
    assert rows["giou"].split()[-1] == "eps=1e-07"
    assert "reduction" not in printed  # a criterion has a normalizer instead


def test_list_says_once_what_all_parts_of_a_kind_take(call):
    found = re.findall(r"^ \(all\) +(.*?) *$", call("list").output, flags=re.MULTILINE)
    assert "class_weight=None, ignore_index=-1" in found
    assert call("list").output.count("ignore_index=-1") == 1


def test_check_prints_the_resolved_config(call):
    result = call("check", CONFIG)
    assert result.exit_code == 0
    assert "low_quality: true" in result.output


def test_check_says_what_is_wrong(call, tmp_path):
    path = tmp_path / "typo.yaml"
    path.write_text(CONFIG.read_text().replace("type: l1", "type: l3"))
    result = call("check", path)
    assert result.exit_code == 1
    assert "box.type: unknown box loss 'l3'" in result.output
    assert "did you mean 'l" in result.output


def test_bench_as_json(call):
    result = call("bench", "--only", "indices-hinge", "--no-memory", "--json")
    (case,) = json.loads(result.output)
    assert case["name"] == "indices-hinge"
    assert list(case["measurements"]) == ["detloss", "plain formula"]


def test_bench_without_values_counts_launches(call):
    result = call("bench", "--only", "giou-1000", "--device", "meta", "--json")
    (case,) = json.loads(result.output)
    assert case["counts"]["detloss"]["launches"] > 0
    assert "launches" in call("bench", "--only", "giou-1000", "--device", "meta").output


def test_bench_of_an_unknown_case_names_the_cases(call):
    result = call("bench", "--only", "nonsense")
    assert isinstance(result.exception, ValueError)
    assert "got nonsense" in str(result.exception)
    assert "focal" in str(result.exception)


def test_scaling_draws_a_picture_and_says_where_time_jumps(call, monkeypatch, tmp_path):
    times = {
        name: {"focal": [1.0, *[1e9] * (len(sweep.sizes) - 1)]}
        for name, sweep in scaling.SWEEPS.items()
    }
    monkeypatch.setattr(scaling, "time_sweeps", lambda device: times)
    result = call("scaling", tmp_path / "scaling.png")
    assert len(result.output.splitlines()) == len(times)
    assert "focal: 20 classes take 1e+09 times as long as 1" in result.output
    assert (tmp_path / "scaling.png").exists()
