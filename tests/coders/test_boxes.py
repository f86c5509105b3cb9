"""The coder of boxes that are decoded already. What holds for every coder is in test_base.py."""

import pytest
import torch
from boxgen import box_pairs
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from detloss.coders import BoxesCoder

ANCHOR = [100.0, 10.0, 108.0, 26.0]  # 8 wide, 16 high, wherever it lies
BOX = [4.0, 8.0, 20.0, 40.0]


@pytest.mark.parametrize(
    ("normalize", "expected"),
    [
        pytest.param(False, BOX, id="as they are"),
        pytest.param(True, [0.5, 0.5, 2.5, 2.5], id="x by the width 8, y by the height 16"),
    ],
)
def test_worked_by_hand(normalize, expected):
    coder = BoxesCoder(normalize=normalize)
    box, anchor, code = (torch.tensor([row]) for row in (BOX, ANCHOR, expected))
    assert_close(coder.encode(box, anchor), code)
    assert_close(coder.decode(code, anchor), box)


@given(box_pairs(), st.booleans())
def test_decode_undoes_encode_at_any_boxes(pair, normalize):
    boxes, anchors = pair
    coder = BoxesCoder(normalize=normalize)
    assert_close(coder.decode(coder.encode(boxes, anchors), anchors), boxes)


@given(box_pairs())
def test_strides_change_with_the_unit_and_not_with_the_place_of_the_anchor(pair):
    boxes, anchors = pair
    coder = BoxesCoder(normalize=True)
    code = coder.encode(boxes, anchors)
    assert_close(coder.encode(boxes * 8, anchors * 8 - 5), code)


def test_an_inverted_box_stays_one():
    code, anchor = torch.tensor([[2.5, 0.5, 0.5, 2.5]]), torch.tensor([ANCHOR])
    assert BoxesCoder(normalize=True).decode(code, anchor).tolist() == [[20.0, 8, 4, 40]]


@pytest.mark.parametrize("normalize", [False, True])
def test_looks_at_the_sides_of_anchors_if_at_all(normalize):
    coder, boxes = BoxesCoder(normalize=normalize), torch.tensor([[20.0, 8, 40, 40]])
    anchor = torch.tensor([ANCHOR])
    code = coder.encode(boxes, anchor)
    assert torch.equal(code, coder.encode(boxes, anchor + 5))
    assert torch.equal(code, coder.encode(boxes, anchor * 2)) != normalize


def test_rejects_options():
    with pytest.raises(TypeError, match="normalize: expected a valid boolean, got 8"):
        BoxesCoder(normalize=8)
