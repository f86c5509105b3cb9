"""A dense loss needs its gradient, and next to nothing beside it."""

import pytest
from fresh_process import measures_memory, printed_by

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
    """The gradient itself is 1; PyTorch's operators one after the other need about 12.

    Where the heap lies is drawn anew in every process, and now and then leaves a hole.
    """
    assert 1 <= min(printed_by(PEAK, dtype) for _ in range(3)) < most
