"""Huber loss. What holds for every registered loss is in test_contract.py."""

from fractions import Fraction

import pytest
import torch
from boxgen import box_pairs
from exact import distances
from hypothesis import given
from torch.testing import assert_close

from detloss.regression import HuberLoss, huber_loss, l2_loss, smooth_l1_loss


@pytest.mark.parametrize(
    ("pred", "delta", "expected"),
    [
        pytest.param([0.0, 0, 0, 0], 1.0, 0.0, id="identical"),
        pytest.param([3.0, 0, 0, -1], 2.0, 2 * (3 - 1) + 1 / 2, id="one in each part"),
        pytest.param([0.05, 0.1, 1, -3], 0.1, 0.00125 + 0.005 + 0.095 + 0.295, id="signs do not"),
    ],
)
def test_values_worked_by_hand(pred, delta, expected):
    loss = huber_loss(torch.tensor([pred]), torch.zeros(1, 4), delta=delta)
    assert_close(loss, torch.tensor([expected]))


@given(box_pairs())
def test_is_delta_times_smooth_l1_and_torchs(pair):
    expected = torch.nn.functional.huber_loss(*pair, delta=0.5, reduction="none").sum(-1)
    assert_close(huber_loss(*pair, delta=0.5), expected)
    assert_close(huber_loss(*pair, delta=0.5), 0.5 * smooth_l1_loss(*pair, beta=0.5))
    assert_close(huber_loss(*pair, delta=1e9), l2_loss(*pair) / 2)


def test_rejects_a_delta_that_is_not_positive():
    with pytest.raises(ValueError, match="HuberLoss: delta: expected a value greater than 0"):
        HuberLoss(delta=0.0)
    with pytest.raises(ValueError, match=r"delta must be greater than 0, got 0\.0"):
        huber_loss(torch.zeros(1, 4), torch.zeros(1, 4), delta=0.0)


EXACT_OPTIONS = [{"delta": delta} for delta in (0.1, 1.0)]


def exact_loss(pred, target, delta):
    """The loss of one row for `test_golden.py`: Huber's equation of rho."""
    delta = Fraction(delta)
    return sum(d**2 / 2 if d < delta else delta * (d - delta / 2) for d in distances(pred, target))
