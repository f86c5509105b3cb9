"""The coder of YOLOX. What holds for every coder is in test_base.py."""

import math

import pytest
import torch
from boxgen import box_pairs
from hypothesis import given
from torch.testing import assert_close

from detloss.boxes import grid_points
from detloss.coders import YOLOXCoder

CELL = [16.0, 8.0, 24.0, 16.0]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param(CELL, [0.5, 0.5, 0, 0], id="the cell: half a side from its corner"),
        pytest.param([12.0, 4.0, 20.0, 12.0], [0.0, 0, 0, 0], id="centred on the corner"),
        pytest.param([8.0, 8.0, 16.0, 24.0], [-0.5, 1, 0, math.log(2)], id="left of it, 16 high"),
        pytest.param([40.0, 10.0, 44.0, 12.0], [3.25, 0.375, -math.log(2), -math.log(4)], id="far"),
    ],
)
def test_worked_by_hand(box, expected):
    box, cell, code = (torch.tensor([row]) for row in (box, CELL, expected))
    assert_close(YOLOXCoder().encode(box, cell), code)
    assert_close(YOLOXCoder().decode(code, cell), box)


def test_a_grid_of_cells_is_decoded_as_in_the_original():
    """``(t + i) s`` and ``exp(t) s`` of the cell in column and row i of a level of stride s."""
    cells, _ = grid_points([(2, 3), (1, 2)], [8, 16])
    column = torch.tensor([0.0, 1, 2, 0, 1, 2, 0, 1])
    row = torch.tensor([0.0, 0, 0, 1, 1, 1, 0, 0])
    stride = torch.tensor([8.0] * 6 + [16.0] * 2)
    tx, ty, tw, th = code = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    x, y, w, h = (tx + column) * stride, (ty + row) * stride, tw.exp() * stride, th.exp() * stride
    expected = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], dim=-1)
    assert_close(YOLOXCoder().decode(code.T.contiguous(), cells), expected)


@given(box_pairs())
def test_decode_undoes_encode_at_any_boxes(pair):
    boxes, cells = pair
    coder = YOLOXCoder()
    assert_close(coder.decode(coder.encode(boxes, cells), cells), boxes)


def test_a_box_without_area_has_a_finite_code():
    point = torch.tensor([[20.0, 12, 20, 12]])
    code = YOLOXCoder().encode(point, torch.tensor([CELL]))
    assert_close(code, torch.tensor([[0.5, 0.5, *[math.log(1e-6 / 8)] * 2]]))


@pytest.mark.parametrize(
    ("size", "grown"),
    [
        pytest.param(math.log(9_000), 9_000, id="9,000 cells"),
        pytest.param(1000.0, 10_000, id="exp would overflow"),
        pytest.param(float("inf"), 10_000, id="infinite"),
        pytest.param(-1000.0, 0, id="shrunk to a point"),
    ],
)
def test_sizes_are_bounded_above_only(size, grown):
    cell = torch.tensor([[-1.0, -1, 1, 1]], dtype=torch.float64)
    code = torch.tensor([[0.5, 0.5, size, size]], dtype=torch.float64)
    assert_close(YOLOXCoder().decode(code, cell), cell * grown)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sizes_as_large_as_the_dtype_holds(dtype):
    code = torch.tensor([[0.0, 0, torch.finfo(dtype).max, -torch.finfo(dtype).max]], dtype=dtype)
    boxes = YOLOXCoder().decode(code.requires_grad_(), torch.tensor([CELL]))
    assert_close(boxes, torch.tensor([[16 - 4e4, 8, 16 + 4e4, 8]]))
    boxes.square().sum().backward()
    assert code.grad.isfinite().all()
