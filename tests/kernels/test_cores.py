"""Pairs cut into a part for each core."""

import pytest
import torch

from detloss.kernels import cores
from detloss.kernels.cores import Parts


@pytest.mark.parametrize(
    ("count", "number", "size"),
    [
        pytest.param(8, 2, 4, id="two halves"),
        pytest.param(9, 2, 5, id="the pair between is in both"),
        pytest.param(3, 1, 3, id="too few for two"),
        pytest.param(0, 1, 0, id="none"),
    ],
)
def test_split_and_join(count, number, size, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(cores, "LEAST_PART", 2)
    rows = torch.arange(2.0 * count).view(count, 2)
    parts = Parts(count, is_cpu=True)
    split = parts.split(rows)
    assert split.shape == (2, number, size)
    assert torch.equal(parts.join(split[0]), rows[:, 0])
    written = torch.empty_like(rows)
    parts.write(written, split + 1)
    assert torch.equal(written, rows + 1)


def test_an_accelerator_has_one_part():
    assert Parts(100_000, is_cpu=False).number == 1
