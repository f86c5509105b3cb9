"""Three labelled rows of logits, for which code of other projects was run in float64."""

import math
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from detloss.kernels import plain_formulas
from detloss.tensors import without_host_sync

LOGITS = torch.tensor([[2, -1, 0.5], [-3, 0, 1], [0.1, 0.2, -0.3]], dtype=torch.float64)
LABELS = torch.tensor([0, 2, 3])  # the last row is background
QUALITY = torch.tensor([0.8, 0.3, math.nan], dtype=torch.float64)
WITH_BACKGROUND = torch.cat([LOGITS, torch.zeros(3, 1, dtype=torch.float64)], dim=1)
"""The same with a background column of logit 0."""


def assert_gives(values, gradients, loss, logits=LOGITS, **options):
    """That a loss of the rows has those values and gradients, to the six digits that are written
    down, however it is computed.
    """
    for way in (nullcontext, plain_formulas, without_host_sync):
        logits = logits.detach().requires_grad_()
        with way():
            found = loss(logits, LABELS, **options)
            found.sum().backward()
        for one, other in ((found, values), (logits.grad, gradients)):
            expected = torch.tensor(other, dtype=torch.float64)
            assert_close(one.detach(), expected, atol=1e-6, rtol=0)


def assert_follows(slow, loss, logits, **options):
    """That a loss is ``slow(x, says_yes, row)`` in each element, and its gradient that of `slow`.

    `slow` is written from the paper, by the functions below. It is called with a Python float for
    the value, and with a tensor for autograd to differentiate.
    """
    logits = logits.detach().requires_grad_()
    found = loss(logits, LABELS, **options)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    for row, label in enumerate(LABELS.tolist()):
        for column in range(logits.shape[1]):
            x = logits[row, column].detach().requires_grad_()
            expected = slow(x.item(), column == label, row)
            (slope,) = torch.autograd.grad(slow(x, column == label, row), x)
            assert found[row, column].item() == pytest.approx(expected, rel=1e-9, abs=0)
            assert gradient[row, column].item() == pytest.approx(slope.item(), rel=1e-8, abs=1e-12)


def sigmoid(x):
    return 1 / (1 + (x.neg().exp() if isinstance(x, Tensor) else math.exp(-x)))


def ln(x):
    return x.log() if isinstance(x, Tensor) else math.log(x)


def constant(x):
    """What the paper or its code holds for the gradient."""
    return x.detach() if isinstance(x, Tensor) else x
