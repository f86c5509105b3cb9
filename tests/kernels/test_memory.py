"""A dense loss needs its gradient, and next to nothing beside it."""

import pytest
import torch
from fresh_process import measures_memory, printed_by

from detloss.kernels.memory import ALIGNMENT, HUGE, fresh_like

PEAK = """
import sys
import torch
from detloss.bench.measure import resident_peak
from detloss.classification import sigmoid_focal_loss

dtype = getattr(torch, sys.argv[1])
logits = torch.randn(300_000, 80).to(dtype).requires_grad_()
target = torch.arange(300_000) % 1000 - 1


def step(logits):
    sigmoid_focal_loss(logits, target[: len(logits)], reduction="mean").backward()
    return [logits]


step(torch.randn(10_000, 80).to(dtype).requires_grad_())  # what a first call loads
print(resident_peak(lambda: step(logits)) / logits.nbytes)
"""


@measures_memory
@pytest.mark.parametrize(("dtype", "most"), [("float32", 1.1), ("bfloat16", 1.2)])
def test_focal_loss(dtype, most):
    """The gradient itself is 1; PyTorch's operators one after the other need about 12."""
    assert 1 <= printed_by(PEAK, dtype) < most


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("count", [0, 1, HUGE // 4 + 1])
def test_fresh_memory_is_like_what_is_given(dtype, count):
    values = torch.zeros(2, count, dtype=dtype).T
    fresh = fresh_like(values)
    assert fresh.shape == values.shape
    assert fresh.dtype == dtype
    assert fresh.is_contiguous()
    assert fresh.data_ptr() % ALIGNMENT == 0
    assert fresh.fill_(1).sum(dtype=torch.float64) == 2 * count


def test_a_gradient_in_huge_pages_is_a_gradient_like_any_other(tmp_path):
    layer = torch.nn.Linear(1024, 1024)
    layer.weight.grad = fresh_like(layer.weight).fill_(1)
    assert layer.weight.nbytes == HUGE
    torch.save(layer.weight.grad, tmp_path / "gradient")
    assert torch.load(tmp_path / "gradient").equal(torch.ones(1024, 1024))
    torch.optim.SGD(layer.parameters(), lr=1.0).step()
    assert layer.weight.grad.equal(torch.ones(1024, 1024))
