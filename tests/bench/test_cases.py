"""The benchmark's cases, shrunk: every runner agrees with detloss. No time is tested."""

import pytest
import torch

from detloss.bench.cases import COUNTED, TIMED
from detloss.bench.launches import count
from detloss.bench.measure import compare

CPU, META = torch.device("cpu"), torch.device("meta")
EAGER = [name for name in TIMED if "compiled" not in name]
TORCHVISION = {"focal", "focal-one-hot", "giou-1000", "match-10", "criterion", "criterion-fcos"}
PYTORCH = {"indices-softmax_cross_entropy", "cross-entropy-one-hot"}


@pytest.mark.parametrize("name", EAGER)
def test_every_runner_agrees(name):
    case = TIMED[name](CPU, 0.002)
    assert next(iter(case.runners)) == "detloss"
    for runner in case.runners:
        found = compare(case, runner, CPU, seconds=0)
        assert found.milliseconds > 0
        assert found.cured > 0
        assert found.difference < (1e-2 if "bf16" in name else 1e-5), found


@pytest.mark.gpu
@pytest.mark.parametrize("name", EAGER)
def test_every_runner_agrees_on_a_gpu(name):
    device = torch.device("cuda")
    case = TIMED[name](device, 0.002)
    for runner in case.runners:
        found = compare(case, runner, device, seconds=0)
        assert found.cured is None
        assert found.difference < (1e-2 if "bf16" in name else 1e-5), found


@pytest.mark.parametrize("name", EAGER)
def test_the_loss_for_a_compiler_is_that_of_the_first_runner(name):
    case = TIMED[name](CPU, 0.002)
    if case.loss is None:
        assert name.startswith(("match", "assign"))
    else:
        value, *_ = case.runners["detloss"]()
        assert torch.equal(case.loss(*case.predictions), value)


@pytest.mark.parametrize("name", COUNTED)
def test_detloss_is_counted_without_values(name):
    case = COUNTED[name](META, 0.002)
    assert count(case.runners["detloss"], case.input_bytes).launches > 0


def test_the_peers_are_there_where_torchvision_is():
    for name in TORCHVISION:
        assert "torchvision" in TIMED[name](CPU, 0.002).runners, name
    for name in PYTORCH:
        assert "PyTorch" in TIMED[name](CPU, 0.002).runners, name


def test_both_sides_of_the_compiled_case_are_compiled(monkeypatch):
    compiled = []

    def compiler(function, **options):
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compiler)
    case = TIMED["focal-compiled"](CPU, 0.002)
    assert list(case.runners) == ["detloss", "torchvision"]
    assert len(compiled) == 2
    assert compare(case, "torchvision", CPU, seconds=0).difference < 1e-5
