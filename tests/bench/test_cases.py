"""The benchmark's cases, shrunk: every runner agrees with detloss. No time is tested."""

import pytest
import torch

from detloss.bench.cases import CASES
from detloss.bench.measure import compare

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", CASES)
def test_every_runner_agrees(name):
    case = CASES[name](CPU, 0.002)
    measurements = compare(case, CPU, seconds=0)
    assert measurements[0].name == "detloss"
    assert measurements[0].ratio == 1
    for measurement in measurements:
        assert measurement.milliseconds > 0
        assert measurement.difference < (1e-2 if "bf16" in name else 1e-5), measurement


def test_the_peers_are_there_where_torchvision_is():
    for name in ("focal", "giou-1000", "match-10", "criterion"):
        assert "torchvision" in CASES[name](CPU, 0.002).runners
