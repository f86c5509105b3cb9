"""Focaler-IoU loss. What holds for every registered loss is in test_contract.py."""

from fractions import Fraction

import pytest
import torch
from exact import iou, penalties, real, trade_off
from torch.testing import assert_close

from detloss.regression import FocalerIoULoss, focaler_iou_loss

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
        pytest.param("A", {}, 1 - 1 / 3 / 0.95, id="A: 1/3 of 0.95"),
        pytest.param("E", {}, 1 - 1 / 4 / 0.95, id="E: 1/4 of 0.95"),
        pytest.param("E", {"low": 0.25, "high": 0.5}, 1.0, id="E: at the beginning"),
        pytest.param("E", {"low": 0.0, "high": 0.125}, 0.0, id="E: beyond the end"),
        pytest.param(
            "C",
            {"member": "ciou", "low": 0.1, "high": 0.8},
            1.247868,
            id="C: alpha of the IoU",
        ),
    ],
)
def test_values_worked_by_hand(pair, options, expected):
    pred, target = (torch.tensor([box], dtype=torch.float64) for box in PAIRS[pair])
    loss = focaler_iou_loss(pred, target, **options)
    assert_close(loss, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (0.9, 0.1)])
def test_rejects_an_interval_without_a_length(low, high):
    message = f"low must be below high, and both in .0, 1., got {low} and {high}"
    with pytest.raises(ValueError, match=message):
        FocalerIoULoss(low=low, high=high)
    with pytest.raises(ValueError, match=message):
        focaler_iou_loss(torch.zeros(1, 4), torch.zeros(1, 4), low=low, high=high)


def test_no_gradient_of_the_overlap_outside_of_the_interval():
    target = torch.tensor([[0.0, 0, 4, 4]])
    for low, high in ((0.5, 1.0), (0.0, 0.2)):
        pred = torch.tensor([[1.0, 1, 3, 3]], requires_grad=True)
        focaler_iou_loss(pred, target, low=low, high=high).backward()
        assert not pred.grad.any()


EXACT_OPTIONS = [
    {"member": "iou", "low": 0.0, "high": 0.95},
    {"member": "ciou", "low": 0.125, "high": 0.75},
]


def exact_loss(pred, target, member, low, high, held=None):
    """The loss of one pair for `test_golden.py`: Focaler-IoU, equations 3 to 8."""
    low, high = Fraction(low), Fraction(high)
    focused = min(max((iou(pred, target) - low) / (high - low), 0), 1)
    others = sum(penalties(member, pred, target, held))
    return real(1 - focused) + others


def exact_constants(pred, target):
    return {"held": trade_off(pred, target)}
