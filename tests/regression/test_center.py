"""CenterNet's loss of codes. What holds for every registered loss is in test_contract.py."""

from fractions import Fraction

import pytest
import torch
from boxgen import box_pairs
from exact import distances
from hypothesis import given
from torch.testing import assert_close

from detloss.regression import CenterLoss, center_loss, l1_loss


@pytest.mark.parametrize(
    ("pred", "options", "expected"),
    [
        pytest.param([0.0, 0, 0, 0], {}, 0.0, id="identical"),
        pytest.param([0.5, -0.25, 0, 0], {}, 0.75, id="the offset counts whole"),
        pytest.param([0.0, 0, 3, -2], {}, 0.5, id="the size a tenth: (3 + 2) / 10"),
        pytest.param([1.0, 1, 1, 1], {"offset": 0.5, "size": 2.0}, 5.0, id="2 / 2 + 2 x 2"),
    ],
)
def test_values_worked_by_hand(pred, options, expected):
    loss = center_loss(torch.tensor([pred]), torch.zeros(1, 4), **options)
    assert_close(loss, torch.tensor([expected]))


@given(box_pairs())
def test_with_factors_of_1_it_is_l1(pair):
    assert_close(center_loss(*pair, size=1.0), l1_loss(*pair))


@given(box_pairs())
def test_the_gradient_is_the_sign_times_the_factor(pair):
    pred, target = pair
    pred.requires_grad_()
    center_loss(pred, target, offset=3.0, size=0.5, reduction="sum").backward()
    factors = torch.tensor([3.0, 3, 0.5, 0.5], dtype=pred.dtype)
    assert torch.equal(pred.grad, torch.sign(pred.detach() - target) * factors)


@pytest.mark.parametrize(("factor", "silent"), [("offset", [0, 1]), ("size", [2, 3])])
@pytest.mark.parametrize("value", [3e38, float("inf"), float("nan")])
def test_a_factor_of_0_silences_whatever_is_there(factor, silent, value):
    pred = torch.ones(1, 4)
    pred[:, silent] = value
    pred.requires_grad_()
    loss = center_loss(pred, torch.zeros(1, 4), **{factor: 0.0}, reduction="sum")
    loss.backward()
    assert loss.isfinite()
    assert (pred.grad[:, silent] == 0).all()
    assert pred.grad.count_nonzero() == 2


@pytest.mark.parametrize("factor", ["offset", "size"])
def test_rejects_a_negative_factor(factor):
    with pytest.raises(ValueError, match=rf"{factor} must be at least 0, got -0\.5"):
        center_loss(torch.zeros(1, 4), torch.zeros(1, 4), **{factor: -0.5})


def test_is_a_loss_on_deltas():
    assert CenterLoss.space == "deltas"


EXACT_OPTIONS = [{"offset": 1.0, "size": 0.1}, {"offset": 0.5, "size": 2.0}, {"offset": 0.0}]


def exact_loss(pred, target, offset=1.0, size=0.1):
    """The loss of one pair for `test_golden.py`."""
    x, y, w, h = distances(pred, target)
    return Fraction(offset) * (x + y) + Fraction(size) * (w + h)
