"""The share of an anchor in the middle of an object: by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from detloss.qualities import MiddleQuality


@pytest.mark.parametrize(
    ("anchor", "options", "expected"),
    [
        pytest.param([9.0, 19, 11, 21], {}, 1.0, id="in the middle, 8 to 12 and 16 to 24"),
        pytest.param([7.0, 19, 9, 21], {}, 0.5, id="half of it"),
        pytest.param([0.0, 0, 20, 40], {}, 0.04, id="the whole: 0.2 x 0.2"),
        pytest.param([0.0, 0, 20, 40], {"least": 0.05}, 0.0, id="no more than the least"),
        pytest.param([0.0, 0, 20, 40], {"region": 1.0}, 1.0, id="a region of 1 is the whole"),
        pytest.param([9.0, 19, 11, 21], {"region": 0.0}, 0.0, id="a region of 0 has no area"),
        pytest.param([4.0, 19, 8, 21], {}, 0.0, id="beside it"),
        pytest.param([10.0, 20, 10, 20], {}, 0.0, id="an anchor without an area"),
    ],
)
def test_shares_worked_by_hand(anchor, options, expected):
    positives = SimpleNamespace(
        anchors=torch.tensor([anchor]), truth_boxes=torch.tensor([[0.0, 0, 20, 40]])
    )
    assert_close(MiddleQuality(**options)(positives), torch.tensor([expected]))


def test_an_inverted_object_has_no_middle():
    positives = SimpleNamespace(
        anchors=torch.tensor([[0.0, 0, 20, 40]]), truth_boxes=torch.tensor([[20.0, 40, 0, 0]])
    )
    assert MiddleQuality()(positives) == 0
