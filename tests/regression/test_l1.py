"""L1 loss. What holds for every registered loss is in test_contract.py."""

import pytest
import torch
from boxgen import box_pairs
from exact import distances
from hypothesis import given
from torch.nn import functional
from torch.testing import assert_close

from detloss.regression import L1Loss, l1_loss


@pytest.mark.parametrize(
    ("pred", "target", "expected"),
    [
        pytest.param([0.5, 1, 2, 3], [0.5, 1, 2, 3], 0.0, id="identical"),
        pytest.param([1.0, 0, 0, -2], [0.0, 0, 0, 0], 3.0, id="|1| + |-2|: summed, not averaged"),
        pytest.param([0.5, 0, 0, 0], [1.0, 0, 0, 0], 0.5, id="below the target counts the same"),
        pytest.param([1.0, 2, 3, 4], [0.0, 0, 0, 0], 10.0, id="every coordinate counts: 1+2+3+4"),
    ],
)
def test_values_worked_by_hand(pred, target, expected):
    assert_close(l1_loss(torch.tensor(pred), torch.tensor(target)), torch.tensor(expected))


@given(box_pairs())
def test_equals_pytorch_summed_over_the_coordinates(pair):
    pred, target = pair
    assert_close(l1_loss(pred, target), functional.l1_loss(pred, target, reduction="none").sum(-1))


@given(box_pairs())
def test_gradient_is_the_sign_of_the_difference(pair):
    pred, target = pair
    pred.requires_grad_()
    l1_loss(pred, target, reduction="sum").backward()
    assert torch.equal(pred.grad, torch.sign(pred.detach() - target))


def test_gradient_is_zero_where_nothing_is_left_to_learn():
    pred = torch.ones(2, 4, requires_grad=True)
    l1_loss(pred, torch.ones(2, 4), reduction="sum").backward()
    assert torch.equal(pred.grad, torch.zeros(2, 4))


def test_mean_divides_by_rows_not_by_coordinates():
    loss = L1Loss()(torch.ones(2, 4), torch.zeros(2, 4))
    assert_close(loss, torch.tensor(4.0))


def test_is_a_loss_on_deltas():
    assert L1Loss.space == "deltas"


def exact_loss(pred, target):
    """The loss of one pair for `test_golden.py`."""
    return sum(distances(pred, target))
