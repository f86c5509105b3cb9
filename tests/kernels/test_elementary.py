"""Elementary functions against Python's own, in float64."""

import math

import pytest
import torch

from detloss.kernels.elementary import LARGE, exponential_, softplus_with_derivative

LOGITS = [-math.inf, -1e4, -120.0, -40.0, -7.3, -1e-3, 0.0, 1e-3, 0.7, 20.5, 79.0]
BEYOND = [LARGE + 1, 1e4, 1e30]
DTYPES = [torch.float32, torch.float64]


def assert_within_roundings(got, expected, z):
    """A few roundings, and one more for each unit of the logit z."""
    allowed = (4 + z.double().abs()).nan_to_num() * torch.finfo(z.dtype).eps * expected
    assert ((got.double() - expected).abs() <= allowed + torch.finfo(z.dtype).tiny).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_exponential(dtype):
    z = torch.tensor(LOGITS, dtype=dtype)
    assert_within_roundings(exponential_(z.clone()), z.double().exp(), z)


@pytest.mark.parametrize("logits", [LOGITS, LOGITS + BEYOND], ids=["moderate", "beyond LARGE"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_softplus_and_its_derivative(logits, dtype):
    z = torch.tensor(logits, dtype=dtype)
    derivative = torch.empty_like(z)
    got = softplus_with_derivative(z.clone(), derivative)
    values = [max(x, 0) + math.log1p(math.exp(-abs(x))) for x in z.tolist()]
    assert_within_roundings(got, torch.tensor(values, dtype=torch.float64), z)
    assert_within_roundings(derivative, z.double().sigmoid(), z)
    assert torch.equal(softplus_with_derivative(z.clone(), None), got)
