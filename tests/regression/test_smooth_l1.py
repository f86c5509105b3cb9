"""Smooth L1 loss. What holds for every registered loss is in test_contract.py."""

from fractions import Fraction

import pytest
import torch
from boxgen import box_pairs
from exact import distances
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing import assert_close

from detloss.regression import SmoothL1Loss, beta_from_sigma, l1_loss, smooth_l1_loss

ZERO = [0.0, 0.0, 0.0, 0.0]
BETAS = st.sampled_from([1 / 9, 0.5, 1.0, 50.0])


def gradient(pred, target, beta):
    pred = pred.detach().requires_grad_()
    smooth_l1_loss(pred, target, beta=beta, reduction="sum").backward()
    return pred.grad


@pytest.mark.parametrize(
    ("pred", "beta", "expected"),
    [
        pytest.param(ZERO, 1.0, 0.0, id="identical"),
        pytest.param([0.5, 0, 0, 0], 1.0, 0.125, id="inside: 0.5^2 / 2"),
        pytest.param([-0.5, 0, 0, 0], 1.0, 0.125, id="the sign does not matter"),
        pytest.param([1.0, 0, 0, 0], 1.0, 0.5, id="at beta both branches give beta / 2"),
        pytest.param([3.0, 0, 0, 0], 1.0, 2.5, id="beyond: 3 - 1/2"),
        pytest.param([1.0, 0, 0, -2], 1.0, 2.0, id="summed: 1/2 + 3/2"),
        pytest.param([1.0, 0, 0, 0], 2.0, 0.25, id="beta 2, inside: 1 / 4"),
        pytest.param([3.0, 0, 0, 0], 2.0, 2.0, id="beta 2, beyond: 3 - 1"),
        pytest.param([3.0, 0, 0, -1], 0.0, 4.0, id="beta 0 is L1"),
    ],
)
def test_values_worked_by_hand(pred, beta, expected):
    loss = smooth_l1_loss(torch.tensor(pred), torch.tensor(ZERO), beta=beta)
    assert_close(loss, torch.tensor(expected))


def reference_smooth_l1(pred, target, beta):
    """Equation 3 of Fast R-CNN with the general beta, on Python floats."""
    distances = [abs(p - t) for p, t in zip(pred, target, strict=True)]
    return sum(d * d / (2 * beta) if d < beta else d - beta / 2 for d in distances)


@given(box_pairs(), BETAS)
def test_every_row_matches_the_paper(pair, beta):
    pred, target = pair
    expected = [
        reference_smooth_l1(p, t, beta) for p, t in zip(pred.tolist(), target.tolist(), strict=True)
    ]
    loss = smooth_l1_loss(pred, target, beta=beta)
    assert_close(loss, torch.tensor(expected, dtype=torch.float64))


@given(box_pairs(), st.sampled_from([0.0, 1 / 9, 0.5, 1.0, 50.0]))
def test_equals_pytorch_summed_over_the_coordinates(pair, beta):
    pred, target = pair
    expected = functional.smooth_l1_loss(pred, target, beta=beta, reduction="none").sum(-1)
    assert_close(smooth_l1_loss(pred, target, beta=beta), expected)


@given(box_pairs(), BETAS)
def test_gradient_is_the_docstring_formula(pair, beta):
    pred, target = pair
    difference = pred - target
    expected = torch.where(difference.abs() < beta, difference / beta, difference.sign())
    assert_close(gradient(pred, target, beta), expected)


@pytest.mark.parametrize("beta", [0.25, 1.0, 3.0])
def test_gradient_is_continuous_where_the_parts_meet(beta):
    at_beta = torch.tensor([[beta, -beta, 0.0, 2 * beta]])
    expected = torch.tensor([[1.0, -1.0, 0.0, 1.0]])
    assert_close(gradient(at_beta, torch.zeros(1, 4), beta), expected)


@given(box_pairs())
def test_beta_zero_is_exactly_l1(pair):
    pred, target = pair
    pred[0] = target[0]  # where a division by beta gave NaN in PyTorch
    assert torch.equal(smooth_l1_loss(pred, target, beta=0.0), l1_loss(pred, target))
    assert torch.equal(gradient(pred, target, 0.0), torch.sign(pred - target))


@pytest.mark.parametrize(("sigma", "beta"), [(1.0, 1.0), (3.0, 1 / 9), (0.5, 4.0)])
def test_beta_from_sigma(sigma, beta):
    assert beta_from_sigma(sigma) == pytest.approx(beta, rel=1e-15)


def test_sigma_puts_the_two_branches_of_faster_r_cnn_together():
    """``sigma^2 x^2 / 2`` where ``|x| < 1 / sigma^2``, else ``|x| - 1 / (2 sigma^2)``."""
    pred = torch.tensor([[0.1, 0.0, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0]])
    loss = smooth_l1_loss(pred, torch.zeros(2, 4), beta=beta_from_sigma(3.0))
    assert_close(loss, torch.tensor([9 * 0.1**2 / 2, 0.5 - 1 / 18]))


@pytest.mark.parametrize("sigma", [0.0, -1.0])
def test_rejects_a_sigma_that_is_not_positive(sigma):
    with pytest.raises(ValueError, match=rf"sigma must be greater than 0, got {sigma}"):
        beta_from_sigma(sigma)


def test_rejects_a_negative_beta():
    with pytest.raises(ValueError, match=r"beta must be at least 0, got -0\.5"):
        smooth_l1_loss(torch.zeros(1, 4), torch.zeros(1, 4), beta=-0.5)
    with pytest.raises(ValueError, match=r"SmoothL1Loss: beta: .*greater than or equal to 0"):
        SmoothL1Loss(beta=-0.5)


def test_is_a_loss_on_deltas():
    assert SmoothL1Loss.space == "deltas"


EXACT_OPTIONS = [{"beta": beta} for beta in (0.0, 1 / 9, 50.0)]


def exact_loss(pred, target, beta):
    """The loss of one pair for `test_golden.py`: Fast R-CNN, equation 3, where beta is 1."""
    beta = Fraction(beta)
    return sum(d**2 / (2 * beta) if d < beta else d - beta / 2 for d in distances(pred, target))
