"""InterpIoU loss. What holds for every registered loss is in test_contract.py."""

from fractions import Fraction

import pytest
import torch
from boxgen import box_pairs
from exact import iou, iou_of_lengths, lengths
from hypothesis import given
from torch.testing import assert_close

from detloss.regression import InterpIoULoss, interp_iou_loss, iou_loss

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
        pytest.param("A", {}, 2 / 3 + 1 - 3.96 / 4.04, id="A: between: 0.02 off a width of 2"),
        pytest.param("B", {}, 1 + 1 - 0.98**2 / (2 - 0.98**2), id="B: 0.02 off both ways"),
        pytest.param("D", {}, 1.27196, id="D: apart: between they overlap"),
        pytest.param("E", {"alpha": 1.0}, 3 / 4, id="E: the target itself"),
    ],
)
def test_values_worked_by_hand(pair, options, expected):
    pred, target = (torch.tensor([box], dtype=torch.float64) for box in PAIRS[pair])
    loss = interp_iou_loss(pred, target, **options)
    assert_close(loss, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-6)


@given(box_pairs())
def test_bounded_and_free_of_the_unit(pair):
    pred, target = pair
    loss = interp_iou_loss(pred, target)
    assert ((loss >= 0) & (loss <= 2)).all()
    assert_close(loss, interp_iou_loss(pred * 1e-3, target * 1e-3))


@given(box_pairs())
def test_identical_boxes_are_exactly_zero(pair):
    assert torch.equal(interp_iou_loss(pair[0], pair[0]), torch.zeros(len(pair[0])).double())


@given(box_pairs())
def test_0_is_twice_the_iou_loss(pair):
    assert_close(interp_iou_loss(*pair, alpha=0.0), 2 * iou_loss(*pair))


def test_a_box_apart_moves_straight_to_its_target():
    pred = torch.tensor([[0.0, 0, 1, 1]], requires_grad=True)
    interp_iou_loss(pred, torch.tensor([[10.0, 10, 11, 11]])).backward()
    assert (pred.grad[0, :2] + pred.grad[0, 2:] < 0).all()


def test_rejects_an_alpha_above_1():
    with pytest.raises(
        ValueError, match="InterpIoULoss: alpha: expected a value less than or equal"
    ):
        InterpIoULoss(alpha=1.5)


EXACT_OPTIONS = [{"alpha": alpha} for alpha in (0.5, 0.98)]


def exact_loss(pred, target, alpha=0.98):
    """The loss of one pair for `test_golden.py`: InterpIoU, equations 6 and 7."""
    alpha = Fraction(alpha)
    axes = [
        ((1 - alpha) * side + alpha * true, true, (1 - alpha) * offset)
        for side, true, offset, _ in lengths(pred, target)
    ]
    return 2 - iou(pred, target) - iou_of_lengths(*axes)
