"""The ``detloss`` command."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

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
    result = call("bench", "--only", "dense-hinge", "--no-memory", "--json")
    (case,) = json.loads(result.output)
    assert case["name"] == "dense-hinge"
    assert case["measurements"][0]["name"] == "detloss"


def test_bench_of_an_unknown_case_names_the_cases(call):
    result = call("bench", "--only", "nonsense")
    assert isinstance(result.exception, ValueError)
    assert "got nonsense" in str(result.exception)
    assert "focal" in str(result.exception)
