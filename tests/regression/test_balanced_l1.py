"""Balanced L1 loss. What holds for every registered loss is in test_contract.py."""

import math

import pytest
import torch
from exact import REALS, distances, real
from torch.testing import assert_close

from detloss.regression import BalancedL1Loss, balanced_l1_loss

B = math.exp(3) - 1  # of gamma 1.5 and alpha 0.5
C = 1.5 / B - 0.5


def loss_of(x, **options):
    pred = torch.tensor([[x, 0, 0, 0]], dtype=torch.float64, requires_grad=True)
    loss = balanced_l1_loss(pred, torch.zeros(1, 4), **options)
    loss.backward()
    return loss.item(), pred.grad[0, 0].item()


@pytest.mark.parametrize(
    ("x", "options", "expected", "gradient"),
    [
        pytest.param(0.0, {}, 0.0, 0.0, id="0"),
        pytest.param(0.05, {}, 0.009304, math.log(0.05 * B + 1) / 2, id="0.05"),
        pytest.param(-0.5, {}, 0.400568, -math.log(0.5 * B + 1) / 2, id="-0.5"),
        pytest.param(3.0, {}, 4.5 + C, 1.5, id="beyond 1: gamma x + C"),
        pytest.param(6.0, {"beta": 2.0}, 2 * (4.5 + C), 1.5, id="twice the unit: twice the loss"),
        pytest.param(
            3.0, {"beta": 2.0, "convention": "mmdet"}, 4.5 + 1.5 / B - 1, 1.5, id="mmdet's end"
        ),
        pytest.param(
            0.0, {"beta": 0.5, "convention": "mmdet"}, 0.0, 0.0, id="mmdet: a kink, halved at 0"
        ),
    ],
)
def test_values_worked_by_hand(x, options, expected, gradient):
    loss, slope = loss_of(x, **options)
    assert loss == pytest.approx(expected, abs=1e-6)
    assert slope == pytest.approx(gradient, abs=1e-6)


def test_coordinates_add_up():
    pred = torch.tensor([[1.0, -1.0, 0.0, 3.0]])
    loss = balanced_l1_loss(pred, torch.zeros(1, 4))
    assert_close(loss, torch.tensor([2 * 1.078594 + 4.078594]))


def test_mmdets_convention_of_a_large_beta_is_below_0():
    assert loss_of(0.02, beta=2.0, convention="mmdet")[0] < 0
    assert loss_of(0.02, beta=2.0)[0] > 0


def test_conventions_agree_at_the_papers_beta():
    pred = torch.linspace(-3, 3, 40, dtype=torch.float64).view(-1, 4)
    assert_close(
        balanced_l1_loss(pred, torch.zeros_like(pred)),
        balanced_l1_loss(pred, torch.zeros_like(pred), convention="mmdet"),
    )


def test_rejects_an_unknown_convention():
    with pytest.raises(ValueError, match="convention must be one of paper, mmdet, got 'libra'"):
        balanced_l1_loss(torch.zeros(1, 4), torch.zeros(1, 4), convention="libra")
    with pytest.raises(ValueError, match="BalancedL1Loss: convention: expected 'paper' or 'mmdet'"):
        BalancedL1Loss(convention="libra")


EXACT_OPTIONS = [{"alpha": 0.5, "gamma": 1.5, "beta": beta} for beta in (0.5, 1.0)]


def exact_loss(pred, target, alpha, gamma, beta):
    """The loss of one row for `test_golden.py`: Libra R-CNN, equations 8 to 10."""
    b, loss = REALS.expm1(real(gamma) / real(alpha)), 0
    for x in (real(d) / real(beta) for d in distances(pred, target)):
        if x < 1:
            loss += real(alpha) / b * (b * x + 1) * REALS.log1p(b * x) - real(alpha) * x
        else:
            loss += real(gamma) * x + real(gamma) / b - real(alpha)
    return loss * real(beta)
