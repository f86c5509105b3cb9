"""Distribution focal loss. What holds for every registered loss is in test_contract.py."""

import math
from fractions import Fraction

import pytest
import torch
from exact import REALS, real
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from detloss.kernels import plain_formulas
from detloss.regression import DistributionFocalLoss, distribution_focal_loss

INFINITY = float("inf")


def log_shares(*rows):
    """Logits (1, 4, bins) whose softmax is each side's row."""
    return torch.tensor([rows], dtype=torch.float64).log()


def reference(logits, target):
    """Generalized focal loss, equation 6, the mean over the sides, on Python floats."""
    total = 0.0
    for row, y in zip(logits, target, strict=True):
        exponentials = [math.exp(z) for z in row]
        p = [e / sum(exponentials) for e in exponentials]
        i = min(int(y), len(row) - 2)
        total -= (i + 1 - y) * math.log(p[i]) + (y - i) * math.log(p[i + 1])
    return total / 4


def reference_gradient(logits, target):
    """The softmax less what it should be, over 4."""
    rows = []
    for row, y in zip(logits, target, strict=True):
        exponentials = [math.exp(z) for z in row]
        shares = [max(0.0, 1 - abs(y - k)) for k in range(len(row))]
        parts = zip(exponentials, shares, strict=True)
        rows.append([(e / sum(exponentials) - share) / 4 for e, share in parts])
    return rows


EVEN = [0.25, 0.25, 0.25, 0.25]
HALVES = [0.125, 0.5, 0.25, 0.125]


@pytest.mark.parametrize(
    ("rows", "target", "expected"),
    [
        pytest.param([EVEN] * 4, [0.0, 1.3, 2.5, 3.0], math.log(4), id="undecided: ln 4 anywhere"),
        pytest.param([HALVES] * 4, [1.0] * 4, math.log(2), id="a whole bin: -ln 1/2 alone"),
        pytest.param([HALVES] * 4, [1.5] * 4, 1.5 * math.log(2), id="half-way: mean of ln 2, ln 4"),
        pytest.param([HALVES] * 4, [1.25] * 4, 1.25 * math.log(2), id="3/4 ln 2 + 1/4 ln 4"),
        pytest.param(
            [HALVES] * 4,
            [0.0, 1.0, 2.0, 3.0],
            (3 + 1 + 2 + 3) / 4 * math.log(2),
            id="mean of the sides, each at its own bin",
        ),
        pytest.param(
            [HALVES, EVEN, EVEN, EVEN], [1.0, 0, 0, 0], 7 / 4 * math.log(2), id="first side first"
        ),
        pytest.param([HALVES] * 4, [3.0] * 4, 3 * math.log(2), id="the last bin"),
        pytest.param([HALVES] * 4, [-5.0] * 4, 3 * math.log(2), id="below counts as 0"),
        pytest.param([HALVES] * 4, [INFINITY] * 4, 3 * math.log(2), id="above counts as the last"),
    ],
)
def test_values_worked_by_hand(rows, target, expected):
    target = torch.tensor([target], dtype=torch.float64)
    loss = distribution_focal_loss(log_shares(*rows), target)
    assert_close(loss, torch.tensor([expected], dtype=torch.float64))


@given(st.integers(0, 2**31), st.integers(2, 33))
def test_value_and_gradient_match_the_paper(seed, bins):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(5, 4, bins, generator=generator, dtype=torch.float64)
    target = (bins - 1) * torch.rand(5, 4, generator=generator, dtype=torch.float64)
    pairs = list(zip(logits.tolist(), target.tolist(), strict=True))
    logits.requires_grad_()
    loss = distribution_focal_loss(logits, target)
    loss.sum().backward()
    assert_close(loss.detach(), loss.new_tensor([reference(*pair) for pair in pairs]))
    assert_close(logits.grad, loss.new_tensor([reference_gradient(*pair) for pair in pairs]))


@pytest.mark.parametrize("y", [0.0, 0.3, 2.5, 6.9, 7.0])
def test_least_where_the_two_bins_have_the_shares(y):
    shares = (1 - (torch.arange(8.0).double() - y).abs()).clamp(min=1e-9)
    logits = shares.log().expand(1, 4, 8).clone().requires_grad_()
    target = torch.full((1, 4), y, dtype=torch.float64)
    loss = distribution_focal_loss(logits, target, reduction="sum")
    loss.backward()
    entropy = -(shares * shares.log()).sum()
    assert_close(loss.detach(), entropy, atol=1e-6, rtol=0)
    assert_close(logits.grad, torch.zeros(1, 4, 8).double(), atol=1e-8, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_logits_as_large_as_their_difference_allows(dtype):
    largest = torch.finfo(dtype).max / 2
    logits = torch.full((1, 4, 8), -largest, dtype=dtype)
    logits[..., 3] = largest
    logits.requires_grad_()
    for y in (3.0, 3.25, 7.0):
        loss = distribution_focal_loss(logits, torch.full((1, 4), y, dtype=dtype))
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        assert loss.isfinite().all()
        assert gradient.isfinite().all()
        assert (gradient[..., 3] >= 0).all()
    assert (gradient[..., 7] == -0.25).all()  # all of it has to move to the last bin


def test_is_a_loss_on_bins():
    assert DistributionFocalLoss.space == "bins"


def test_a_nan_distance_gives_a_nan_loss_not_a_crash():
    target = torch.tensor([[1.0, 2.0, float("nan"), 3.0], [1.0, 2.0, 3.0, 4.0]])
    loss = distribution_focal_loss(torch.zeros(2, 4, 8), target)
    assert loss.isnan().tolist() == [True, False]


def test_blocks_change_nothing():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9000, 4, 16, generator=generator).requires_grad_()  # three blocks
    target = torch.rand(9000, 4, generator=generator) * 15
    weight = torch.rand(9000, generator=generator).round(decimals=1)

    def value_and_gradient():
        loss = distribution_focal_loss(logits, target, weight=weight, reduction="mean")
        return loss.detach(), *torch.autograd.grad(loss, logits)

    with plain_formulas():
        expected = value_and_gradient()
    for got, plain in zip(value_and_gradient(), expected, strict=True):
        assert_close(got, plain)


def test_logits_need_not_be_contiguous():
    generator = torch.Generator().manual_seed(0)
    channels_first = torch.randn(2, 64, 30, generator=generator).requires_grad_()
    logits = channels_first.transpose(1, 2).unflatten(-1, (4, 16))  # as a convolution gives them
    target = torch.rand(2, 30, 4, generator=generator) * 15
    loss = distribution_focal_loss(logits, target)
    assert_close(loss, distribution_focal_loss(logits.detach().contiguous(), target))
    loss.sum().backward()
    assert channels_first.grad.isfinite().all()


@pytest.mark.parametrize(
    ("pred", "target", "error", "message"),
    [
        pytest.param(
            torch.zeros(2, 64),
            torch.zeros(2, 4),
            ValueError,
            r"pred must have shape \(\.\.\., 4, bins\) of at least 2 bins, got \(2, 64\)",
            id="sides and bins as one axis",
        ),
        pytest.param(
            torch.zeros(2, 4, 1),
            torch.zeros(2, 4),
            ValueError,
            r"of at least 2 bins, got \(2, 4, 1\)",
            id="one bin has no neighbour",
        ),
        pytest.param(
            torch.zeros(64),
            torch.zeros(4),
            ValueError,
            r"\(\.\.\., 4, bins\) of at least 2 bins, got \(64,\)",
            id="one axis",
        ),
        pytest.param(
            torch.zeros(2, 4, 8),
            torch.zeros(2, 4, 8),
            ValueError,
            r"target must have shape \(\.\.\., 4\), got \(2, 4, 8\)",
            id="a target for each bin",
        ),
        pytest.param(
            torch.zeros(2, 4, 8),
            torch.zeros(4),
            ValueError,
            r"target must have shape \(2, 4\), one distance a side of pred, got \(4,\)",
            id="no broadcasting",
        ),
        pytest.param(
            torch.zeros(2, 4, 8),
            torch.zeros(2, 4).int(),
            TypeError,
            "target must be floating point, got torch.int32",
            id="integer distances",
        ),
    ],
)
def test_rejects(pred, target, error, message):
    with pytest.raises(error, match=message):
        distribution_focal_loss(pred, target)


def test_weight_has_one_value_a_row():
    with pytest.raises(ValueError, match=r"weight must have shape \(2,\), got \(2, 4\)"):
        DistributionFocalLoss()(torch.zeros(2, 4, 8), torch.zeros(2, 4), torch.ones(2, 4))


def exact_loss(pred, target):
    """The loss of one row for `test_golden.py`: generalized focal loss, equation 6."""
    total = 0
    for row, y in zip(pred, map(Fraction, target), strict=True):
        logits = [real(logit) for logit in row]
        log_sum = REALS.log(sum(REALS.exp(logit) for logit in logits))
        i = min(math.floor(y), len(row) - 2)
        total += real(i + 1 - y) * (log_sum - logits[i])
        total += real(y - i) * (log_sum - logits[i + 1])
    return total / 4
