"""YOLO's loss of codes. What holds for every registered loss is in test_contract.py."""

import math

import pytest
import torch
from boxgen import box_pairs
from exact import REALS, distances, real
from hypothesis import given
from torch.nn import functional
from torch.testing import assert_close

from detloss.regression import YOLOLoss, l2_loss, yolo_loss

LN2 = math.log(2)


@pytest.mark.parametrize(
    ("pred", "target", "expected"),
    [
        pytest.param([0.0, 0, 0, 0], [0.0, 0, 0, 0], 2 * LN2, id="in the middle: ln 2 for x and y"),
        pytest.param([0.0, 0, 3, -1], [5.0, -5, 0, 0], 2 * LN2 + 10, id="p 1/2 costs ln 2: 9 + 1"),
        pytest.param([9e9, 0, 0, 0], [9e9, 0, 0, 0], LN2, id="what is certain and true is free"),
        pytest.param([9e9, 0, 0, 0], [-9e9, 0, 0, 0], 9e9, id="certain and wrong: the logit"),
        pytest.param(
            [-2.0, 0, 0, 0], [0.0, 0, 0, 0], 1 + math.log1p(math.exp(-2)) + LN2, id="soft"
        ),
    ],
)
def test_values_worked_by_hand(pred, target, expected):
    loss = yolo_loss(torch.tensor(pred).double(), torch.tensor(target).double())
    assert loss.item() == pytest.approx(expected)


@given(box_pairs())
def test_the_centre_is_the_cross_entropy_of_sigmoids(pair):
    pred, target = pair
    labels = target[..., :2].sigmoid()
    expected = functional.binary_cross_entropy_with_logits(pred[..., :2], labels, reduction="none")
    assert_close(yolo_loss(pred, target, size=0.0), expected.sum(-1))


@given(box_pairs())
def test_the_size_is_the_squared_error(pair):
    pred, target = pair
    rest = torch.cat([target[..., :2], pred[..., 2:]], -1)
    assert_close(yolo_loss(pred, target, centre=0.0), l2_loss(rest, target))


@given(box_pairs())
def test_the_gradient_is_the_difference_of_probabilities_and_twice_that_of_sizes(pair):
    pred, target = pair
    pred.requires_grad_()
    yolo_loss(pred, target, centre=3.0, size=0.5, reduction="sum").backward()
    of_centre = 3 * (pred.detach().sigmoid() - target.sigmoid())
    expected = torch.cat([of_centre[..., :2], (pred.detach() - target)[..., 2:]], -1)
    assert_close(pred.grad, expected)


@pytest.mark.parametrize(("factor", "silent"), [("centre", [0, 1]), ("size", [2, 3])])
def test_a_factor_of_0_silences_even_what_overflows(factor, silent):
    pred = torch.ones(1, 4)
    pred[:, silent] = 1e38
    pred.requires_grad_()
    loss = yolo_loss(pred, torch.zeros(1, 4), **{factor: 0.0}, reduction="sum")
    loss.backward()
    assert loss.isfinite()
    assert (pred.grad[:, silent] == 0).all()
    assert pred.grad.count_nonzero() == 2


@pytest.mark.parametrize("factor", ["centre", "size"])
def test_rejects_a_negative_factor(factor):
    with pytest.raises(ValueError, match=rf"{factor} must be at least 0, got -0\.5"):
        yolo_loss(torch.zeros(1, 4), torch.zeros(1, 4), **{factor: -0.5})


def test_is_a_loss_on_deltas():
    assert YOLOLoss.space == "deltas"


EXACT_OPTIONS = [{"centre": 1.0, "size": 1.0}, {"centre": 0.5, "size": 2.0}, {"centre": 0.0}]


def exact_loss(pred, target, centre=1.0, size=1.0):
    """The loss of one pair for `test_golden.py`."""
    entropy = 0
    for x, goal in zip(map(real, pred[:2]), map(real, target[:2]), strict=True):
        if x > 0:  # the answer "no" to the opposite question, for digits
            x, goal = -x, -goal
        entropy += REALS.log1p(REALS.exp(x)) - x / (1 + REALS.exp(-goal))
    squared = sum(d**2 for d in distances(pred, target)[2:])
    return centre * entropy + size * real(squared)
