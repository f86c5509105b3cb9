"""The coder of YOLOv3 and YOLOv5. What holds for every coder is in test_base.py."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from detloss.boxes import grid_anchors
from detloss.coders import YOLOCoder

INFINITY = float("inf")
SEEDS = st.integers(0, 2**31)
STRIDES = [8.0, 16.0, 32.0]
CENTRE = (20.0, 20.0)  # of the cell from (16, 16) to (24, 24)
ANCHOR = [15.0, 10.0, 25.0, 30.0]  # 10 x 20 around it


def sigmoid(t):
    return 1 / (1 + math.exp(-t))


def logit(p):
    return math.log(p / (1 - p))


def reference_decode(code, anchor, stride, version):
    """The formulas of the two versions on Python floats."""
    tx, ty, tw, th = code
    wa, ha = anchor[2] - anchor[0], anchor[3] - anchor[1]
    xc = (anchor[0] + anchor[2] - stride) / 2
    yc = (anchor[1] + anchor[3] - stride) / 2
    if version == "v3":
        x, y = xc + stride * sigmoid(tx), yc + stride * sigmoid(ty)
        w, h = wa * math.exp(tw), ha * math.exp(th)
    else:
        x, y = xc + stride * (2 * sigmoid(tx) - 0.5), yc + stride * (2 * sigmoid(ty) - 0.5)
        w, h = wa * (2 * sigmoid(tw)) ** 2, ha * (2 * sigmoid(th)) ** 2
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def anchors_and_strides(count, seed):
    """Anchor boxes of any shape, their centre in cells of strides 8, 16 and 32."""
    generator = torch.Generator().manual_seed(seed)
    stride = torch.tensor(STRIDES, dtype=torch.float64)
    stride = stride[torch.randint(3, (count,), generator=generator)]
    cell = torch.randint(0, 20, (count, 2), generator=generator) + 0.5
    half = 2 + 100 * torch.rand(count, 2, generator=generator, dtype=torch.float64)
    centre = cell * stride[:, None]
    return torch.cat([centre - half, centre + half], dim=-1), stride


@pytest.mark.parametrize(
    ("version", "box", "expected"),
    [
        pytest.param("v3", ANCHOR, [0.0, 0, 0, 0], id="v3, the anchor: in the middle of the cell"),
        pytest.param("v5", ANCHOR, [0.0, 0, 0, 0], id="v5, the anchor: 2 x 1/2 squared is 1"),
        pytest.param(
            "v3",
            [13.0, 12.0, 23.0, 32.0],
            [logit(0.25), logit(0.75), 0, 0],
            id="v3, centre (18, 22): a quarter of 8 from the left, three from the top",
        ),
        pytest.param(
            "v5",
            [13.0, 12.0, 23.0, 32.0],
            [logit(0.375), logit(0.625), 0, 0],
            id="v5, the same: (1/4 + 1/2) / 2",
        ),
        pytest.param(
            "v5",
            [9.0, 16.0, 19.0, 36.0],
            [logit(0.125), logit(0.875), 0, 0],
            id="v5, centre (14, 26), a quarter of a cell outside",
        ),
        pytest.param(
            "v3",
            [10.0, 15.0, 30.0, 25.0],
            [0, 0, math.log(2), -math.log(2)],
            id="v3, twice as wide, half as high",
        ),
        pytest.param(
            "v5",
            [8.75, 17.5, 31.25, 22.5],
            [0, 0, logit(0.75), logit(0.25)],
            id="v5, 2.25 times as wide, a quarter as high: roots 1.5 and 0.5, halved",
        ),
    ],
)
def test_worked_by_hand(version, box, expected):
    coder = YOLOCoder(version=version, strides=STRIDES)
    box, anchor, code = (
        torch.tensor([row], dtype=torch.float64) for row in (box, ANCHOR, expected)
    )
    stride = torch.tensor([8.0], dtype=torch.float64)
    assert_close(coder.encode(box, anchor, stride), code)
    assert_close(coder.decode(code, anchor, stride), box)


@pytest.mark.parametrize("version", ["v3", "v5"])
@given(seed=SEEDS)
def test_decode_is_the_formula_and_encode_undoes_it(version, seed):
    anchors, strides = anchors_and_strides(8, seed)
    code = 2 * torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)).double()
    rows = zip(code.tolist(), anchors.tolist(), strides.tolist(), strict=True)
    expected = [reference_decode(*row, version) for row in rows]
    coder = YOLOCoder(version=version, strides=STRIDES)
    decoded = coder.decode(code, anchors, strides)
    assert_close(decoded, torch.tensor(expected, dtype=torch.float64))
    assert_close(coder.encode(decoded, anchors, strides), code, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("version", "shift", "growth"),
    [
        pytest.param("v3", (0.0, 1.0), (0.0, INFINITY), id="v3: in the cell, of any size"),
        pytest.param("v5", (-0.5, 1.5), (0.0, 4.0), id="v5: half a cell outside, up to 4 times"),
    ],
)
@given(seed=SEEDS)
def test_every_decoded_box_is_in_reach_and_not_inverted(version, shift, growth, seed):
    anchors, strides = anchors_and_strides(16, seed)
    code = 10 * torch.randn(16, 4, generator=torch.Generator().manual_seed(seed)).double()
    boxes = YOLOCoder(version=version, strides=STRIDES).decode(code, anchors, strides)
    corner = (anchors[:, :2] + anchors[:, 2:] - strides[:, None]) / 2
    offset = ((boxes[:, :2] + boxes[:, 2:]) / 2 - corner) / strides[:, None]
    ratio = (boxes[:, 2:] - boxes[:, :2]) / (anchors[:, 2:] - anchors[:, :2])
    for values, (low, high) in ((offset, shift), (ratio, growth)):
        assert (values >= low - 1e-9).all()
        assert (values <= high + 1e-9).all()


@pytest.mark.parametrize(
    ("version", "edge"),
    [
        pytest.param("v3", [23.999992, 16.000008], id="v3: the corner of the cell"),
        pytest.param("v5", [27.999984, 12.000016], id="v5: half a cell further"),
    ],
)
def test_a_centre_out_of_reach_is_learned_at_the_edge(version, edge):
    coder = YOLOCoder(version=version, strides=STRIDES)
    anchor = torch.tensor([ANCHOR], dtype=torch.float64)
    stride = torch.tensor([8.0], dtype=torch.float64)
    code = coder.encode(anchor + torch.tensor([100.0, -100, 100, -100]), anchor, stride)
    assert_close(code[0, :2].sigmoid(), torch.tensor([1 - 1e-6, 1e-6], dtype=torch.float64))
    decoded = coder.decode(code, anchor, stride)[0]
    assert_close((decoded[:2] + decoded[2:]) / 2, torch.tensor(edge, dtype=torch.float64))


def test_an_anchor_is_its_own_cell_where_no_strides_are_said():
    cells, _ = grid_anchors([(2, 2)], [8], scales=[1.0], offset=0.5)
    code = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    expected = YOLOCoder(strides=[8]).decode(code, cells, torch.full((4,), 8.0))
    assert torch.equal(YOLOCoder().decode(code, cells), expected)


@pytest.mark.parametrize("version", ["v3", "v5"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("sign", [-1, 1])
def test_outputs_as_large_as_the_dtype_holds(version, dtype, sign):
    code = torch.full((1, 4), sign * torch.finfo(dtype).max, dtype=dtype).requires_grad_()
    coder = YOLOCoder(version=version, strides=STRIDES)
    boxes = coder.decode(code, torch.tensor([ANCHOR]), torch.tensor([8.0]))
    assert boxes.isfinite().all()
    boxes.square().sum().backward()
    assert code.grad.isfinite().all()


@pytest.mark.parametrize(
    ("strides", "error", "message"),
    [
        pytest.param(None, ValueError, r"shape \(2,\), one for each of anchors, got None", id="no"),
        pytest.param(torch.ones(1), ValueError, r"shape \(2,\).*, got \(1,\)", id="broadcasting"),
        pytest.param(
            torch.ones(2, dtype=torch.int64), TypeError, "floating point, got torch.int64", id="int"
        ),
    ],
)
def test_rejects_strides(strides, error, message):
    coder, boxes = YOLOCoder(strides=STRIDES), torch.tensor([ANCHOR, ANCHOR])
    for code in (coder.encode, coder.decode):
        with pytest.raises(error, match=f"strides must (have|be) {message}"):
            code(boxes, boxes, strides)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"version": "v8"}, ValueError, "version: expected 'v3' or 'v5', got 'v8'"),
        ({"strides": [8, 0]}, ValueError, "strides: expected a value greater than 0"),
        ({"strides": 8}, TypeError, "strides: expected a list"),
    ],
)
def test_rejects_options(options, error, message):
    with pytest.raises(error, match=message):
        YOLOCoder(**options)
