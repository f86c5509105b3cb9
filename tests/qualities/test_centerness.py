"""How near an anchor lies to the centre of its ground truth."""

from types import SimpleNamespace

import pytest
import torch
from boxgen import random_boxes
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from detloss.qualities import CenternessQuality


def quality(centre, truth, side=2.0, dtype=torch.float32):
    x, y = centre
    half = side / 2
    anchor = torch.tensor([[x - half, y - half, x + half, y + half]], dtype=dtype)
    positives = SimpleNamespace(anchors=anchor, truth_boxes=torch.tensor([truth], dtype=dtype))
    return CenternessQuality()(positives).item()


TRUTH = [0.0, 0, 8, 4]


@pytest.mark.parametrize(
    ("centre", "expected"),
    [
        pytest.param((4, 2), 1.0, id="the centre"),
        pytest.param((2, 2), (2 / 6) ** 0.5, id="l 2, r 6, in the middle of the height"),
        pytest.param((6, 2), (2 / 6) ** 0.5, id="as far on the other side"),
        pytest.param((4, 1), (1 / 3) ** 0.5, id="t 1, b 3"),
        pytest.param((2, 1), (2 / 6 / 3) ** 0.5, id="both: the root of the product"),
        pytest.param((0, 2), 0.0, id="on the edge"),
        pytest.param((8, 4), 0.0, id="in the corner"),
        pytest.param((9, 2), 0.0, id="outside, beside"),
        pytest.param((9, 5), 0.0, id="outside both ways: two negatives make no quality"),
        pytest.param((-100, -100), 0.0, id="far off"),
    ],
)
def test_worked_by_hand(centre, expected):
    assert quality(centre, TRUTH) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("side", [0.0, 0.5, 64.0])
def test_the_size_of_an_anchor_does_not_matter(side):
    assert quality((2, 2), TRUTH, side=side) == pytest.approx((2 / 6) ** 0.5, rel=1e-6)


@pytest.mark.parametrize(
    "truth",
    [
        pytest.param([1.0, 1, 1, 1], id="a point"),
        pytest.param([0.0, 1, 4, 1], id="a line"),
        pytest.param([4.0, 4, 0, 0], id="inverted"),
        pytest.param([4.0, 0, 0, 4], id="inverted in x"),
    ],
)
@pytest.mark.parametrize("centre", [(1, 1), (2, 2), (2, 1), (50, 50)])
def test_a_ground_truth_without_area_has_no_centre(centre, truth):
    assert quality(centre, truth) == 0


def slow(centre, truth):
    """Equation 3 on Python floats; 0 where a distance is not positive."""
    (x, y), (x1, y1, x2, y2) = centre, truth
    left, top, right, bottom = x - x1, y - y1, x2 - x, y2 - y
    if min(left, top, right, bottom) <= 0:
        return 0.0
    horizontal = min(left, right) / max(left, right)
    return (horizontal * min(top, bottom) / max(top, bottom)) ** 0.5


def test_equals_the_equation():
    truths = random_boxes(400, seed=3)
    anchors = random_boxes(400, seed=4) / 4 + truths  # about half of the centres are outside
    found = CenternessQuality()(SimpleNamespace(anchors=anchors, truth_boxes=truths))
    centres = ((anchors[:, :2] + anchors[:, 2:]) / 2).tolist()
    expected = [slow(*pair) for pair in zip(centres, truths.tolist(), strict=True)]
    assert 100 < sum(value > 0 for value in expected) < 300
    assert_close(found, torch.tensor(expected, dtype=found.dtype))


@given(st.floats(0.01, 1000), st.floats(-500, 500), st.floats(-500, 500))
def test_does_not_change_with_the_unit_and_the_place(scale, x, y):
    moved = [8 * scale + x, 4 * scale + y]
    found = quality((2 * scale + x, 1 * scale + y), [x, y, *moved], dtype=torch.float64)
    assert found == pytest.approx((1 / 9) ** 0.5, rel=1e-6)


def test_a_centre_is_found_in_half_precision():
    """40,000 + 40,000 is infinite in float16, where 8,000 + 8,016 is rounded to a multiple of 8."""
    truth = [7992, 39_968, 8024, 40_032]
    assert quality((8008, 40_000), truth, side=16.0, dtype=torch.float16) == 1
