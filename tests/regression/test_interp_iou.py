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
DYNAMIC = {"alpha": (0.6, 0.99)}


@pytest.mark.parametrize(
    ("pair", "options", "expected"),
    [
        pytest.param("A", {}, 2 / 3 + 1 - 3.96 / 4.04, id="A: between: 0.02 off a width of 2"),
        pytest.param("B", {}, 1 + 1 - 0.98**2 / (2 - 0.98**2), id="B: 0.02 off both ways"),
        pytest.param("D", {}, 1.27196, id="D: apart: between they overlap"),
        pytest.param("E", {"alpha": 1.0}, 3 / 4, id="E: the target itself"),
        pytest.param("A", DYNAMIC, 2 / 3 + 1 - 5 / 7, id="A: dynamic: 2/3 of the way, 1/3 off"),
        pytest.param(
            "B", DYNAMIC, 2 - 0.99**2 / (2 - 0.99**2), id="B: dynamic: the largest alpha, 0.99"
        ),
        pytest.param("E", DYNAMIC, 3 / 4 + 1 - 49 / 64, id="E: dynamic: between 3.5 of 4 wide"),
        pytest.param("C", DYNAMIC, 1.211386, id="C: dynamic"),
        pytest.param("D", DYNAMIC, 1.148113, id="D: dynamic"),
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


def test_a_dynamic_alpha_is_constant_for_the_gradient():
    """Half shifted: alpha is 2/3, within the bounds."""
    target = torch.tensor([[1.0, 0, 3, 2]])
    found = []
    for alpha in ((0.6, 0.99), 2 / 3):
        pred = torch.tensor([[0.0, 0, 2, 2]], requires_grad=True)
        interp_iou_loss(pred, target, alpha=alpha).backward()
        found.append(pred.grad)
    assert_close(*found)


@pytest.mark.parametrize("alpha", [[0.9, 0.6], [0.6], [0.1, 0.2, 0.3]])
def test_rejects_bounds_that_are_none(alpha):
    with pytest.raises(ValueError, match="alpha must be a number, or the least and the largest"):
        interp_iou_loss(torch.zeros(1, 4), torch.zeros(1, 4), alpha=alpha)
    with pytest.raises((TypeError, ValueError), match="alpha"):
        InterpIoULoss(alpha=alpha)


def test_rejects_an_alpha_above_1():
    with pytest.raises(
        ValueError, match="InterpIoULoss: alpha: expected a value less than or equal"
    ):
        InterpIoULoss(alpha=1.5)


EXACT_OPTIONS = [{"alpha": 0.5}, {"alpha": 0.98}, {"alpha": [0.6, 0.99]}]


def exact_loss(pred, target, alpha=0.98, held=None):
    """The loss of one pair for `test_golden.py`: InterpIoU, equations 6 and 7.

    `held` is the IoU of a dynamic alpha, as a constant.
    """
    if isinstance(alpha, list):
        low, high = map(Fraction, alpha)
        alpha = min(max(1 - (iou(pred, target) if held is None else held), low), high)
    alpha = Fraction(alpha)
    axes = [
        ((1 - alpha) * side + alpha * true, true, (1 - alpha) * offset)
        for side, true, offset, _ in lengths(pred, target)
    ]
    return 2 - iou(pred, target) - iou_of_lengths(*axes)


def exact_constants(pred, target):
    return {"held": iou(pred, target)}
