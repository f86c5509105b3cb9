"""Focal EIoU loss. What holds for every registered loss is in test_contract.py."""

import pytest
import torch
from boxgen import box_pairs
from exact import REALS, at_least_1_if_inverted, diou, iou, lengths, real
from hypothesis import given
from torch.testing import assert_close

from detloss.regression import FocalEIoULoss, eiou_loss, focal_eiou_loss

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
        pytest.param("A", {}, (1 / 3) ** 0.5 * (1 - 1 / 3 + 1 / 13), id="A: root of 1/3"),
        pytest.param("B", {}, 0.0, id="B: no overlap, no loss"),
        pytest.param("E", {}, 0.5 * 1.25, id="E: root of 1/4"),
        pytest.param("E", {"gamma": 2.0}, 1.25 / 16, id="E: square of 1/4"),
        pytest.param("B", {"gamma": 0.0}, 1.25, id="B: 0^0 is 1: EIoU"),
    ],
)
def test_values_worked_by_hand(pair, options, expected):
    pred, target = (torch.tensor([box], dtype=torch.float64) for box in PAIRS[pair])
    loss = focal_eiou_loss(pred, target, **options)
    assert_close(loss, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-6)


@given(box_pairs())
def test_gamma_0_is_eiou(pair):
    assert_close(focal_eiou_loss(*pair, gamma=0.0), eiou_loss(*pair))


def test_the_factor_is_constant_for_the_gradient():
    """A unit box shifted by 0.7: with a gradient of the factor it would be pushed away."""
    target = torch.tensor([[0.0, 0, 1, 1]], dtype=torch.float64)
    found = []
    for loss in (focal_eiou_loss, eiou_loss):
        pred = (target + torch.tensor([0.7, 0, 0.7, 0])).requires_grad_()
        loss(pred, target).backward()
        found.append(pred.grad)
    assert_close(found[0], found[1] * (0.3 / 1.7) ** 0.5)
    assert found[0][0, [0, 2]].sum() > 0  # a step down moves it back


def test_rejects_a_negative_gamma():
    with pytest.raises(ValueError, match="FocalEIoULoss: gamma: expected a value greater than or"):
        FocalEIoULoss(gamma=-0.5)


EXACT_OPTIONS = [{"gamma": gamma} for gamma in (0.5, 2.0)]


def exact_loss(pred, target, gamma, overlap=None):
    """The loss of one pair for `test_golden.py`; `overlap` is the IoU of the factor."""
    overlap = real(iou(pred, target)) if overlap is None else overlap
    sides = sum(((side - true) / hull) ** 2 for side, true, _, hull in lengths(pred, target))
    loss = REALS.power(overlap, gamma) * real(1 - diou(pred, target) + sides)
    return at_least_1_if_inverted(loss, pred, target)


def exact_constants(pred, target):
    return {"overlap": real(iou(pred, target))}
