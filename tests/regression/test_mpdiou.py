"""MPDIoU loss. What holds for every registered loss is in test_contract.py."""

from fractions import Fraction

import pytest
import torch
from boxgen import box_pairs
from exact import iou, whole
from hypothesis import given
from torch.testing import assert_close

from detloss.regression import MPDIoULoss, mpdiou_loss

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
        pytest.param("A", {"image_size": (6.0, 8.0)}, 2 / 3 + 2 / 100, id="A: both corners by 1"),
        pytest.param("C", {"image_size": (4.0, 4.0)}, 6 / 7 + 18 / 32, id="C: the last by 3 and 3"),
        pytest.param("D", {}, 1 + (200 + 290) / (2 * 640**2), id="D: in 640 px"),
        pytest.param("E", {"image_size": (1.0, 1.0)}, 3 / 4 + 4 / 2, id="E: by 1 and 1"),
    ],
)
def test_values_worked_by_hand(pair, options, expected):
    pred, target = (torch.tensor([box], dtype=torch.float64) for box in PAIRS[pair])
    loss = mpdiou_loss(pred, target, **options)
    assert_close(loss, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-6)


@given(box_pairs())
def test_symmetric_and_free_of_a_unit_in_which_the_image_is(pair):
    pred, target = pair
    loss = mpdiou_loss(pred, target, image_size=(300.0, 400.0))
    assert_close(loss, mpdiou_loss(target, pred, image_size=(400.0, 300.0)))
    assert_close(loss, mpdiou_loss(pred / 100, target / 100, image_size=(3.0, 4.0)))
    assert (mpdiou_loss(pred, pred) == 0).all()


@pytest.mark.parametrize("size", [(640.0,), (640.0, 0.0), (1.0, 2.0, 3.0)])
def test_rejects_what_is_no_size(size):
    with pytest.raises(ValueError, match="image_size must be two positive numbers, got"):
        mpdiou_loss(torch.zeros(1, 4), torch.zeros(1, 4), image_size=size)
    with pytest.raises(ValueError, match="image_size"):
        MPDIoULoss(image_size=size)


EXACT_OPTIONS = [{"image_size": [640.0, 640.0]}, {"image_size": [4096.0, 8192.0]}]
EXACT_LENGTHS = ("image_size",)


def exact_loss(pred, target, image_size=(640.0, 640.0)):
    """The loss of one pair for `test_golden.py`: MPDIoU, algorithm 1."""
    numbers, factor = whole(pred + target)
    x1, y1, x2, y2 = numbers[:4]
    u1, v1, u2, v2 = numbers[4:]
    x2, y2, u2, v2 = max(x1, x2), max(y1, y2), max(u1, u2), max(v1, v2)  # inverted ones collapse
    squares = (x1 - u1) ** 2 + (y1 - v1) ** 2 + (x2 - u2) ** 2 + (y2 - v2) ** 2
    diagonal = sum(Fraction(side) ** 2 for side in image_size)
    return 1 - iou(pred, target) + Fraction(squares, factor**2) / diagonal
