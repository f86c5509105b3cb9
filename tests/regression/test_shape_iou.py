"""Shape-IoU loss. What holds for every registered loss is in test_contract.py."""

import math

import pytest
import torch
from boxgen import box_pairs
from exact import REALS, iou, lengths, real
from hypothesis import given
from torch.testing import assert_close

from detloss.regression import shape_iou_loss

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
        pytest.param("A", {}, 2 / 3 + 1 / 13, id="A: as DIoU: sides alike"),
        pytest.param("C", {}, 6 / 7 + 4.5 / 32 + (1 - math.exp(-3 / 4)) ** 4, id="C: sides by 3/4"),
        pytest.param("C", {"scale": 1.0}, 1.119257, id="C: hh 8/5, ww 2/5"),
        pytest.param("E", {}, 3 / 4 + (1 - math.exp(-1 / 2)) ** 4, id="E: sides by 1/2"),
    ],
)
def test_values_worked_by_hand(pair, options, expected):
    pred, target = (torch.tensor([box], dtype=torch.float64) for box in PAIRS[pair])
    loss = shape_iou_loss(pred, target, **options)
    assert_close(loss, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-6)


@given(box_pairs())
def test_bounded_and_free_of_the_unit(pair):
    pred, target = pair
    loss = shape_iou_loss(pred, target)
    assert ((loss >= 0) & (loss <= 2.16)).all()
    assert_close(loss, shape_iou_loss(pred * 1e-3, target * 1e-3))


@given(box_pairs())
def test_identical_boxes_are_exactly_zero(pair):
    assert torch.equal(shape_iou_loss(pair[0], pair[0]), torch.zeros(len(pair[0])).double())


@pytest.mark.parametrize("scale", [-1000.0, -1.0, 1000.0])
@pytest.mark.parametrize("target", [[0.0, 0, 4, 1], [0.0, 0, 1, 4], [0.0, 0, 0, 4]])
def test_any_scale_is_finite(scale, target):
    pred = torch.tensor([[0.0, 0, 2, 2]], requires_grad=True)
    loss = shape_iou_loss(pred, torch.tensor([target]), scale=scale)
    loss.backward()
    assert 0 <= loss < 4
    assert pred.grad.isfinite().all()


EXACT_OPTIONS = [{"scale": scale} for scale in (0.0, 1.0)]


def exact_loss(pred, target, scale=0.0):
    """The loss of one pair for `test_golden.py`: the authors' code, shapeiou.py."""
    (w, wt, dx, cw), (h, ht, dy, ch) = lengths(pred, target)
    ww = 2 * wt ** int(scale) / (wt ** int(scale) + ht ** int(scale))
    hh = 2 - ww
    cost = sum(
        (1 - REALS.exp(real(-weight * abs(side - true) / max(side, true)))) ** 4
        for weight, side, true in ((hh, w, wt), (ww, h, ht))
    )
    distance = (hh * dx**2 + ww * dy**2) / (cw**2 + ch**2)
    return real(1 - iou(pred, target) + distance) + cost / 2
