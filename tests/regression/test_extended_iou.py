"""Extended-IoU loss. What holds for every registered loss is in test_contract.py."""

import math
from fractions import Fraction

import pytest
import torch
from boxgen import box_pairs
from exact import at_least_1_if_inverted, lengths, whole
from hypothesis import given
from torch.testing import assert_close

from detloss.regression import extended_iou_loss, iou_loss

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
        pytest.param("A", {}, 2 / 3 - 0.05, id="A: overlapping: the IoU"),
        pytest.param("B", {}, 0.95, id="B: touching at a corner: S 0"),
        pytest.param("D", {}, 1.9065217, id="D: S -89 over 9 + 89"),
        pytest.param("E", {"beta": 1.0}, 0.75**2 / 2, id="E: quadratic up to beta"),
    ],
)
def test_values_worked_by_hand(pair, options, expected):
    pred, target = (torch.tensor([box], dtype=torch.float64) for box in PAIRS[pair])
    loss = extended_iou_loss(pred, target, **options)
    assert_close(loss, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-6)


@given(box_pairs())
def test_bounded_symmetric_and_free_of_the_unit(pair):
    pred, target = pair
    loss = extended_iou_loss(pred, target)
    assert ((loss >= 0) & (loss <= 2)).all()
    assert_close(loss, extended_iou_loss(target, pred))
    assert_close(loss, extended_iou_loss(pred * 1e-3, target * 1e-3))


@given(box_pairs())
def test_identical_boxes_are_exactly_zero(pair):
    assert torch.equal(extended_iou_loss(pair[0], pair[0]), torch.zeros(len(pair[0])).double())


def test_not_mirrored():
    """It is measured from the first corner of the hull."""
    pred, target = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[10.0, 10, 12, 14]])
    mirror = torch.tensor([-1.0, 1, -1, 1])
    mirrored = extended_iou_loss(
        (pred * mirror)[:, [2, 1, 0, 3]], (target * mirror)[:, [2, 1, 0, 3]]
    )
    assert_close(mirrored, torch.tensor([1.91]))


@given(box_pairs())
def test_of_overlapping_boxes_it_is_the_iou_loss(pair):
    overlap = 1 - iou_loss(*pair)
    found = extended_iou_loss(*pair, beta=1e-9) + 0.5e-9
    assert_close(found[overlap > 0], 1 - overlap[overlap > 0])


EXACT_OPTIONS = [{"beta": beta} for beta in (0.1, 1.0)]


def exact_overlap(pred, target, min_size=0.0):
    """Extended IoU of one pair, as in libfacedetection.train.

    A flat box has a floor under the union, the least side times the longer side of the hull.
    """
    numbers, factor = whole(pred + target)
    ends = []
    for x1, x2, u1, u2 in (numbers[i::2] for i in (0, 1)):
        x2, u2 = max(x1, x2), max(u1, u2)  # inverted ones collapse
        start = min(x1, u1)
        ends.append((max(x1, u1) - start, min(x2, u2) - start))
    (ix, jx), (iy, jy) = ends
    shared = jx * jy + min(ix, jx) * min(iy, jy) - ix * max(iy, jy) - max(ix, jx) * iy
    (w, wt, _, cw), (h, ht, _, ch) = lengths(pred, target)
    shared = Fraction(shared, factor**2)
    return shared / max(w * h + wt * ht - shared, Fraction(min_size) * max(cw, ch))


def exact_loss(pred, target, beta):
    """The loss of one pair for `test_golden.py`: smooth L1 of what is missing to 1."""
    x, beta = 1 - exact_overlap(pred, target, math.sqrt(1e-7)), Fraction(beta)
    loss = x**2 / (2 * beta) if x < beta else x - beta / 2
    return at_least_1_if_inverted(loss, pred, target)
