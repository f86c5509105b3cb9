"""The coder of FoveaBox. What holds for every coder is in test_base.py."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from detloss.coders import FoveaCoder, LTRBCoder

ANCHOR = [0.0, 16.0, 8.0, 24.0]  # centre (4, 20), side 8: a base edge of 16


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param([-12.0, 4, 20, 36], [1.0, 1, 1, 1], id="16 pixels all around: logarithm 0"),
        pytest.param([-4.0, 12, 36, 84], [0.5, 0.5, 2, 4], id="left, top, right, bottom"),
        pytest.param(ANCHOR, [0.25] * 4, id="the cell: 4 of 16"),
        pytest.param([3.0, 19, 5, 21], [1 / 16] * 4, id="1 of 16, the least"),
    ],
)
def test_worked_by_hand(box, expected):
    box, anchor, shares = (torch.tensor([row]) for row in (box, ANCHOR, expected))
    assert_close(FoveaCoder().encode(box, anchor), shares.log())
    assert_close(FoveaCoder().decode(shares.log(), anchor), box)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param([6.0, 4, 20, 36], [1 / 16, 1, 1, 1], id="centre left of the box"),
        pytest.param([3.5, 4, 20, 36], [1 / 16, 1, 1, 1], id="half a pixel"),
        pytest.param([-400.0, 4, 2000, 36], [16.0, 1, 16, 1], id="25 and 125 base edges"),
    ],
)
def test_targets_are_cut(box, expected):
    code = FoveaCoder().encode(torch.tensor([box]), torch.tensor([ANCHOR]))
    assert_close(code, torch.tensor([expected]).log())


@given(st.integers(0, 2**31), st.sampled_from([(2.0, 16.0), (1.0, 4.0)]))
def test_are_the_logarithms_of_the_distances_of_ltrb(seed, options):
    scale, limit = options
    coder = FoveaCoder(scale=scale, limit=limit)
    generator = torch.Generator().manual_seed(seed)
    code = math.log(limit) * (2 * torch.rand(8, 4, generator=generator).double() - 1)
    anchors = torch.tensor([ANCHOR], dtype=torch.float64).expand(8, 4)
    boxes = coder.decode(code, anchors)
    assert_close(boxes, LTRBCoder().decode(scale * code.exp(), anchors))
    assert_close(coder.encode(boxes, anchors), code)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_logarithms_as_large_as_the_dtype_holds(dtype):
    most = torch.finfo(dtype).max
    code = torch.tensor([[most, -most, -most, most]], dtype=dtype).requires_grad_()
    boxes = FoveaCoder().decode(code, torch.tensor([ANCHOR]))
    assert_close(boxes, torch.tensor([[4 - 1.6e5, 20, 4, 20 + 1.6e5]]))
    boxes.square().sum().backward()
    assert code.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0}, "scale: expected a value greater than 0, got 0"),
        ({"limit": 1}, "limit: expected a value greater than 1, got 1"),
    ],
)
def test_rejects_options(options, message):
    with pytest.raises(ValueError, match=message):
        FoveaCoder(**options)
