"""The benchmark's cases, shrunk: every runner agrees with detloss. No time is tested."""

import pytest
import torch

from detloss.bench.cases import CASES
from detloss.bench.measure import compare

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", CASES)
def test_every_runner_agrees(name):
    case = CASES[name](CPU, 0.002)
    assert next(iter(case.runners)) == "detloss"
    for runner in case.runners:
        found = compare(case, runner, CPU, seconds=0)
        assert found.milliseconds > 0
        assert found.difference < (1e-2 if "bf16" in name else 1e-5), found


def test_the_peers_are_there_where_torchvision_is():
    for name in ("focal", "giou-1000", "match-10", "criterion"):
        assert "torchvision" in CASES[name](CPU, 0.002).runners
