"""Powerful-IoU loss. What holds for every registered loss is in test_contract.py."""

import math
from fractions import Fraction

import pytest
import torch
from boxgen import box_pairs
from exact import REALS, iou, real, whole
from hypothesis import given
from torch.testing import assert_close

from detloss.regression import piou_loss

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
        pytest.param("A", {}, 2 / 3 + 1 - math.exp(-1 / 16), id="A: x edges by 1 of 2: P 1/4"),
        pytest.param("B", {}, 2 - math.exp(-1), id="B: all by 1 of 1: P 1"),
        pytest.param(
            "C", {}, 6 / 7 + 1 - math.exp(-(15**2) / 16**2), id="C: 3 of 1 and 3 of 4: P 15/16"
        ),
        pytest.param("E", {}, 3 / 4 + 1 - math.exp(-1 / 16), id="E: all by 1 of 4: P 1/4"),
    ],
)
def test_values_worked_by_hand(pair, options, expected):
    pred, target = (torch.tensor([box], dtype=torch.float64) for box in PAIRS[pair])
    loss = piou_loss(pred, target, **options)
    assert_close(loss, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-6)


@given(box_pairs())
def test_bounded_and_free_of_the_unit(pair):
    pred, target = pair
    loss = piou_loss(pred, target)
    assert ((loss >= 0) & (loss <= 2)).all()
    assert_close(loss, piou_loss(pred * 1e-3, target * 1e-3))


@given(box_pairs())
def test_identical_boxes_are_exactly_zero(pair):
    assert torch.equal(piou_loss(pair[0], pair[0]), torch.zeros(len(pair[0])).double())


def test_a_box_far_away_does_not_grow():
    """Its last corner would move away from the target, of a loss with a hull in it."""
    pred = torch.tensor([[3.0, 3, 4, 4]], requires_grad=True)
    piou_loss(pred, torch.tensor([[0.0, 0, 2, 2]])).backward()
    assert (pred.grad > 0).all()


def exact_loss(pred, target):
    """The loss of one pair for `test_golden.py`: Powerful-IoU, equations 8 to 10."""
    numbers, _ = whole(pred + target)
    x1, y1, x2, y2 = numbers[:4]
    u1, v1, u2, v2 = numbers[4:]
    x2, y2, u2, v2 = max(x1, x2), max(y1, y2), max(u1, u2), max(v1, v2)  # inverted ones collapse
    if not (u2 > u1 and v2 > v1):
        return 2  # of a flat target the distance is endless
    x = Fraction(abs(x1 - u1) + abs(x2 - u2), u2 - u1)
    y = Fraction(abs(y1 - v1) + abs(y2 - v2), v2 - v1)
    mean = (x + y) / 4
    return real(2 - iou(pred, target)) - REALS.exp(real(-(mean**2)))
