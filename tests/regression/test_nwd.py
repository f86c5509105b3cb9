"""NWD loss. What holds for every registered loss is in test_contract.py."""

import math

import pytest
import torch
from boxgen import box_pairs
from exact import REALS, lengths, real
from hypothesis import given
from torch.testing import assert_close

from detloss.regression import nwd_loss

PAIRS = {
    "A": ([0.0, 0, 2, 2], [1.0, 0, 3, 2]),  # half shifted: IoU 1/3
    "B": ([0.0, 0, 1, 1], [1.0, 1, 2, 2]),  # corner to corner
    "C": ([0.0, 0, 4, 1], [0.0, 0, 1, 4]),  # across: IoU 1/7
    "D": ([0.0, 0, 1, 1], [10.0, 10, 12, 14]),  # apart
    "E": ([1.0, 1, 3, 3], [0.0, 0, 4, 4]),  # inside, one centre: IoU 1/4
}


@pytest.mark.parametrize(
    ("pair", "options", "expected"),
    [
        pytest.param("A", {}, 1 - math.exp(-1 / 12.8), id="A: 1 off"),
        pytest.param("B", {}, 1 - math.exp(-(2**0.5) / 12.8), id="B: root 2 off"),
        pytest.param("C", {"constant": 3.0}, 1 - math.exp(-1), id="C: 4.5 + 18 / 4: 3 off"),
        pytest.param("E", {}, 1 - math.exp(-(2**0.5) / 12.8), id="E: sides by 2: 8 / 4"),
    ],
)
def test_values_worked_by_hand(pair, options, expected):
    pred, target = (torch.tensor([box], dtype=torch.float64) for box in PAIRS[pair])
    loss = nwd_loss(pred, target, **options)
    assert_close(loss, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-6)


@given(box_pairs())
def test_bounded_and_symmetric(pair):
    pred, target = pair
    loss = nwd_loss(pred, target)
    assert ((loss >= 0) & (loss <= 1)).all()
    assert_close(loss, nwd_loss(target, pred))


@given(box_pairs())
def test_identical_boxes_are_exactly_zero(pair):
    assert torch.equal(nwd_loss(pair[0], pair[0]), torch.zeros(len(pair[0])).double())


@given(box_pairs())
def test_free_of_a_unit_in_which_the_constant_is(pair):
    pred, target = pair
    assert_close(nwd_loss(pred, target), nwd_loss(pred / 8, target / 8, constant=1.6))


def test_gradient_at_0_is_0_and_next_to_it_is_1_over_the_constant():
    target = torch.tensor([[0.0, 0, 2, 2]], dtype=torch.float64)
    for shift, expected in ((0.0, 0.0), (1e-9, 0.5 / 12.8)):
        pred = (target + torch.tensor([shift, 0, shift, 0])).requires_grad_()
        nwd_loss(pred, target).backward()
        assert_close(pred.grad[0, 0].item(), expected, rtol=1e-6, atol=0)


EXACT_LENGTHS = ("constant",)


def exact_loss(pred, target, constant=12.8):
    """The loss of one pair for `test_golden.py`: NWD, equations 9 and 11."""
    if any(x2 < x1 or y2 < y1 for x1, y1, x2, y2 in (pred, target)):
        return 1
    axes = lengths(pred, target)
    squared = sum(offset**2 + (side - true) ** 2 / 4 for side, true, offset, _ in axes)
    return 1 - REALS.exp(-REALS.sqrt(real(squared)) / real(constant))
