"""The coder of FSAF. What holds for every coder is in test_base.py."""

import pytest
import torch
from boxgen import box_pairs
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from detloss.coders import LTRBCoder, TBLRCoder

ANCHOR = [0.0, 10.0, 8.0, 26.0]  # centre (4, 18), 8 wide, 16 high


@pytest.mark.parametrize(
    ("box", "normalizer", "expected"),
    [
        pytest.param(ANCHOR, 4.0, [0.125] * 4, id="the anchor: half a side, of 4"),
        pytest.param(ANCHOR, 1.0, [0.5] * 4, id="the anchor, in its sides"),
        pytest.param(
            [0.0, 2.0, 20.0, 50.0], 1.0, [1.0, 2, 0.5, 2], id="16, 32, 4, 16 by height and width"
        ),
        pytest.param([0.0, 2.0, 20.0, 50.0], 2.0, [0.5, 1, 0.25, 1], id="halved"),
        pytest.param([6.0, 10.0, 8.0, 26.0], 1.0, [0.5, 0.5, -0.25, 0.5], id="centre left of it"),
    ],
)
def test_worked_by_hand(box, normalizer, expected):
    coder = TBLRCoder(normalizer=normalizer)
    box, anchor, distances = (torch.tensor([row]) for row in (box, ANCHOR, expected))
    assert_close(coder.encode(box, anchor), distances)
    assert_close(coder.decode(distances, anchor), box)


@given(box_pairs(), st.sampled_from([0.5, 4.0]))
def test_are_the_distances_of_ltrb_in_another_order(pair, normalizer):
    boxes, anchors = pair
    left, top, right, bottom = LTRBCoder().encode(boxes, anchors).unbind(-1)
    coder = TBLRCoder(normalizer=normalizer)
    distances = coder.encode(boxes, anchors)
    assert_close(distances * normalizer, torch.stack([top, bottom, left, right], dim=-1))
    assert_close(coder.decode(distances, anchors), boxes)


def test_distances_below_0_may_invert_the_box():
    distances = torch.tensor([[2.0, 4.0, 1.0, -3.0]]) / 16
    decoded = TBLRCoder(normalizer=1.0).decode(distances, torch.tensor([[0.0, 0, 16, 16]]))
    assert decoded.tolist() == [[7.0, 6.0, 5.0, 12.0]]


def test_rejects_options():
    with pytest.raises(ValueError, match="normalizer: expected a value greater than 0, got 0"):
        TBLRCoder(normalizer=0)
