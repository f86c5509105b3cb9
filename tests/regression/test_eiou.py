"""Efficient IoU loss. What holds for every registered loss is in test_contract.py."""

import pytest
import torch
from boxgen import box_pairs
from exact import diou, lengths
from hypothesis import given
from torch.testing import assert_close

from detloss.regression import eiou_loss

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
        pytest.param("A", {}, 1 - 1 / 3 + 1 / 13, id="A: d2 1 over c2 9 + 4; sides alike"),
        pytest.param("B", {}, 1 + 2 / 8, id="B: d2 2 over c2 8; sides alike"),
        pytest.param(
            "C",
            {},
            1 - 1 / 7 + 4.5 / 32 + 2 * (3 / 4) ** 2,
            id="C: sides differ by 3 of 4",
        ),
        pytest.param(
            "D", {}, 1 + 242.5 / 340 + (1 / 12) ** 2 + (3 / 14) ** 2, id="D: hull 12 x 14"
        ),
        pytest.param(
            "E",
            {},
            1 - 1 / 4 + 2 * (2 / 4) ** 2,
            id="E: sides differ by 2 of 4",
        ),
    ],
)
def test_values_worked_by_hand(pair, options, expected):
    pred, target = (torch.tensor([box], dtype=torch.float64) for box in PAIRS[pair])
    loss = eiou_loss(pred, target, **options)
    assert_close(loss, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-6)


@given(box_pairs())
def test_symmetric_bounded_and_free_of_unit(pair):
    pred, target = pair
    loss = eiou_loss(pred, target)
    assert ((loss >= 0) & (loss < 3.25)).all()
    assert_close(loss, eiou_loss(target, pred))
    assert_close(loss, eiou_loss(pred * 1e-3, target * 1e-3))


@given(box_pairs())
def test_identical_boxes_are_exactly_zero(pair):
    assert torch.equal(eiou_loss(pair[0], pair[0]), torch.zeros(len(pair[0])).double())


def exact_loss(pred, target):
    """The loss of one pair for `test_golden.py`: Focal and Efficient IOU Loss, equation 5."""
    sides = sum(((side - true) / hull) ** 2 for side, true, _, hull in lengths(pred, target))
    return 1 - diou(pred, target) + sides
