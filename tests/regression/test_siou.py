"""SIoU loss. What holds for every registered loss is in test_contract.py."""

import math

import pytest
import torch
from boxgen import box_pairs
from exact import REALS, at_least_1_if_inverted, iou, lengths, real
from hypothesis import given
from torch.testing import assert_close

from detloss.regression import SIoULoss, siou_loss

PAIRS = {
    "A": ([0.0, 0, 2, 2], [1.0, 0, 3, 2]),  # half shifted: IoU 1/3
    "B": ([0.0, 0, 1, 1], [1.0, 1, 2, 2]),  # corner to corner
    "C": ([0.0, 0, 4, 1], [0.0, 0, 1, 4]),  # across: IoU 1/7
    "D": ([0.0, 0, 1, 1], [10.0, 10, 12, 14]),  # apart
    "E": ([1.0, 1, 3, 3], [0.0, 0, 4, 4]),  # inside, one centre: IoU 1/4
}
MMDET = {"convention": "mmdet"}


@pytest.mark.parametrize(
    ("pair", "options", "expected"),
    [
        pytest.param(
            "A",
            {},
            1 - 1 / 3 + (1 - math.exp(-2 / 9)) / 2,
            id="A: g 2, share 1/3",
        ),
        pytest.param("B", {}, 1 + (1 - math.exp(-1 / 4)), id="B: g 1, shares 1/2"),
        pytest.param(
            "C",
            {},
            1 - 1 / 7 + 1 - math.exp(-(1.5**2) / 16) + (1 - math.exp(-3 / 4)) ** 4,
            id="C: angle 1; sides 3/4",
        ),
        pytest.param("E", {}, 3 / 4 + (1 - math.exp(-1 / 2)) ** 4, id="E: sides 1/2"),
        pytest.param(
            "E", {"theta": 2.0}, 3 / 4 + (1 - math.exp(-1 / 2)) ** 2, id="E: another power"
        ),
        pytest.param("A", MMDET, 2 / 3 + (1 - math.exp(2 / 9)) / 2, id="A: g of the other sign"),
        pytest.param("B", MMDET, 1 + 1 - math.exp(1 / 4), id="B: g of the other sign"),
        pytest.param("D", MMDET, 0.0, id="D: below 0, cut"),
        pytest.param("E", MMDET, 3 / 4 + (1 - math.exp(-1 / 2)) ** 4, id="E: no distance, no sign"),
    ],
)
def test_values_worked_by_hand(pair, options, expected):
    pred, target = (torch.tensor([box], dtype=torch.float64) for box in PAIRS[pair])
    loss = siou_loss(pred, target, **options)
    assert_close(loss, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-6)


@given(box_pairs())
def test_symmetric_bounded_and_free_of_unit(pair):
    pred, target = pair
    loss = siou_loss(pred, target)
    assert ((loss >= 0) & (loss < 2.03)).all()
    assert_close(loss, siou_loss(target, pred))
    assert_close(loss, siou_loss(pred * 1e-3, target * 1e-3))


@given(box_pairs())
def test_identical_boxes_are_exactly_zero(pair):
    assert torch.equal(siou_loss(pair[0], pair[0]), torch.zeros(len(pair[0])).double())


@pytest.mark.parametrize("shift", [(0.0, 0.0), (1e-30, 0.0), (1.0, 0.0), (0.0, 1.0), (1e-9, 1.0)])
def test_gradient_is_finite_where_the_centres_lie_on_one_axis(shift):
    """The paper's arcsine has none there."""
    target = torch.tensor([[0.0, 0, 4, 4]], dtype=torch.float64)
    pred = torch.tensor([[1.0, 1, 3, 3]], dtype=torch.float64) + torch.tensor([shift * 2])
    pred.requires_grad_()
    siou_loss(pred, target).backward()
    assert pred.grad.isfinite().all()
    assert pred.grad.abs().max() < 1


def test_by_mmdets_convention_a_box_leaves_its_target():
    """The paper's pulls both; of the one far off mmdet's loss is cut at 0."""
    target = torch.tensor([[1.0, 0, 3, 2], [10.0, 0, 11, 2]])
    gradients = []
    for convention in ("paper", "mmdet"):
        pred = torch.tensor([[0.0, 0, 2, 2]]).repeat(2, 1).requires_grad_()
        siou_loss(pred, target, convention=convention).sum().backward()
        gradients.append(pred.grad[:, ::2].sum(1))  # along x
    assert (gradients[0] < 0).all()
    assert gradients[1][0] > gradients[0][0]
    assert gradients[1][1] == 0


def test_rejects_an_unknown_convention():
    with pytest.raises(ValueError, match="convention must be one of paper, mmdet, got 'yolov6'"):
        siou_loss(torch.zeros(1, 4), torch.zeros(1, 4), convention="yolov6")
    with pytest.raises(ValueError, match="SIoULoss: convention: expected 'paper' or 'mmdet'"):
        SIoULoss(convention="yolov6")


def test_rejects_a_theta_below_1():
    with pytest.raises(ValueError, match="SIoULoss: theta: expected a value greater than or equal"):
        SIoULoss(theta=0.5)


EXACT_OPTIONS = [{"theta": theta} for theta in (2.0, 4.0)] + [MMDET]


def exact_loss(pred, target, theta=4.0, convention="paper"):
    """The loss of one pair for `test_golden.py`: SIoU, with ``sin 2a`` for equation 2."""
    axes = lengths(pred, target)
    dx, dy = (abs(offset) for _, _, offset, _ in axes)
    angle = 2 * dx * dy / (dx**2 + dy**2) if dx or dy else 0
    g = 2 - angle if convention == "mmdet" else angle - 2
    cost = 0
    for side, true, offset, hull in axes:
        cost += 1 - REALS.exp(real(g * (offset / hull) ** 2))
        cost += (1 - REALS.exp(real(-abs(side - true) / max(side, true)))) ** theta
    loss = real(1 - iou(pred, target)) + cost / 2
    if convention == "mmdet":
        loss = min(max(loss, 0), 2)
    return at_least_1_if_inverted(loss, pred, target)
