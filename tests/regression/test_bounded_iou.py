"""Bounded IoU loss. What holds for every registered loss is in test_contract.py."""

from fractions import Fraction

import pytest
import torch
from boxgen import box_pairs
from exact import at_least_1_if_inverted, lengths
from hypothesis import given
from torch.testing import assert_close

from detloss.regression import bounded_iou_loss

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
        pytest.param("A", {"beta": 1.0}, 1 / 2, id="A: B_x 0: 1/2 of 1"),
        pytest.param("B", {}, 2 * 0.9, id="B: both offsets beyond the bound"),
        pytest.param("E", {}, 2 * (1 / 2 - 0.1), id="E: sides by 1/2"),
        pytest.param("E", {"beta": 1.0}, 2 * (1 / 2) ** 2 / 2, id="E: quadratic"),
        pytest.param(
            "C", {}, 0.9 + (6 / 7 - 0.1) + 2 * (3 / 4 - 0.1), id="C: 1.5 off 1 wide, 3 of 7 high"
        ),
    ],
)
def test_values_worked_by_hand(pair, options, expected):
    pred, target = (torch.tensor([box], dtype=torch.float64) for box in PAIRS[pair])
    loss = bounded_iou_loss(pred, target, **options)
    assert_close(loss, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-6)


@given(box_pairs())
def test_bounded_and_free_of_the_unit(pair):
    pred, target = pair
    loss = bounded_iou_loss(pred, target)
    assert ((loss >= 0) & (loss <= 4)).all()
    assert_close(loss, bounded_iou_loss(pred * 1e-3, target * 1e-3))


@given(box_pairs())
def test_identical_boxes_are_exactly_zero(pair):
    assert torch.equal(bounded_iou_loss(pair[0], pair[0]), torch.zeros(len(pair[0])).double())


EXACT_OPTIONS = [{"beta": beta} for beta in (0.2, 1.0)]


def exact_loss(pred, target, beta):
    """The loss of one pair for `test_golden.py`: Bounded IoU, as in mmdet without its eps."""
    loss, beta = 0, Fraction(beta)
    for side, true, offset, _ in lengths(pred, target):
        bounds = (
            max(0, (true - 2 * abs(offset)) / (true + 2 * abs(offset))),
            min(side / true, true / side if side else 0),
        )
        for x in (1 - bound for bound in bounds):
            loss += x**2 / (2 * beta) if x < beta else x - beta / 2
    return at_least_1_if_inverted(loss, pred, target)
