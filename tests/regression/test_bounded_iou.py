"""Bounded IoU loss. What holds for every registered loss is in test_contract.py."""

from fractions import Fraction

import pytest
import torch
from boxgen import box_pairs
from exact import at_least_1_if_inverted, lengths
from hypothesis import given
from torch.testing import assert_close

from detloss.regression import BoundedIoULoss, bounded_iou_loss

PAIRS = {
    "A": ([0.0, 0, 2, 2], [1.0, 0, 3, 2]),  # half shifted: IoU 1/3
    "B": ([0.0, 0, 1, 1], [1.0, 1, 2, 2]),  # corner to corner
    "C": ([0.0, 0, 4, 1], [0.0, 0, 1, 4]),  # across: IoU 1/7
    "D": ([0.0, 0, 1, 1], [10.0, 10, 12, 14]),  # apart
    "E": ([1.0, 1, 3, 3], [0.0, 0, 4, 4]),  # inside, one centre: IoU 1/4
}
DENET = {"convention": "denet"}


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
        pytest.param("A", DENET | {"beta": 1.0}, (2 / 3) ** 2 / 2, id="A: DeNet's B_x is the IoU"),
        pytest.param("B", DENET, 2 * 0.9, id="B: each DeNet's bound is 0"),
        pytest.param(
            "D", DENET, 21 / 12.5 + 23 / 15.5 + 1 / 2 + 3 / 4 - 4 * 0.1, id="D: beyond it below 0"
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
    for convention, highest in (("paper", 4), ("denet", 6)):
        loss = bounded_iou_loss(pred, target, convention=convention)
        assert ((loss >= 0) & (loss <= highest)).all()
        scaled = bounded_iou_loss(pred * 1e-3, target * 1e-3, convention=convention)
        assert_close(loss, scaled)


@given(box_pairs())
def test_identical_boxes_are_exactly_zero(pair):
    assert torch.equal(bounded_iou_loss(pair[0], pair[0]), torch.zeros(len(pair[0])).double())


def test_denets_convention_pulls_a_box_that_is_apart():
    target = torch.tensor([[10.0, 0, 12, 2]])
    for convention, pulled in (("paper", False), ("denet", True)):
        pred = torch.tensor([[0.0, 0, 2, 2]], requires_grad=True)
        bounded_iou_loss(pred, target, convention=convention).backward()
        assert (pred.grad[0, ::2] < 0).all() == pulled


def test_rejects_an_unknown_convention():
    with pytest.raises(ValueError, match="convention must be one of paper, denet, got 'mmdet'"):
        bounded_iou_loss(torch.zeros(1, 4), torch.zeros(1, 4), convention="mmdet")
    with pytest.raises(ValueError, match="BoundedIoULoss: convention: expected 'paper' or 'denet'"):
        BoundedIoULoss(convention="mmdet")


EXACT_OPTIONS = [{"beta": 0.2}, {"beta": 1.0}, {"beta": 0.2, "convention": "denet"}]


def exact_loss(pred, target, beta, convention="paper"):
    """The loss of one pair for `test_golden.py`: Bounded IoU, as in mmdet without its eps."""
    loss, beta = 0, Fraction(beta)
    for side, true, offset, _ in lengths(pred, target):
        distance = abs(offset) if convention == "denet" else 2 * abs(offset)
        bound = (true - distance) / (true + distance)
        bounds = (
            bound if convention == "denet" else max(0, bound),
            min(side / true, true / side if side else 0),
        )
        for x in (1 - bound for bound in bounds):
            loss += x**2 / (2 * beta) if x < beta else x - beta / 2
    return at_least_1_if_inverted(loss, pred, target)
