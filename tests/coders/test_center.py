"""The coder of CenterNet. What holds for every coder is in test_base.py."""

import pytest
import torch
from boxgen import box_pairs
from hypothesis import given
from torch.testing import assert_close

from detloss.boxes import grid_points
from detloss.coders import CenterCoder

CELL = [16.0, 8.0, 20.0, 12.0]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param(CELL, [0.5, 0.5, 1, 1], id="the cell itself"),
        pytest.param([7.0, 3.0, 27.0, 15.0], [0.25, 0.25, 5, 3], id="centre (17, 9), 20 x 12"),
        pytest.param([16.0, 8.0, 16.0, 8.0], [0.0, 0, 0, 0], id="a point in the corner"),
        pytest.param([8.0, 10.0, 16.0, 20.0], [-1.0, 1.75, 2, 2.5], id="centre in another cell"),
    ],
)
def test_worked_by_hand(box, expected):
    box, cell, code = (torch.tensor([row]) for row in (box, CELL, expected))
    assert_close(CenterCoder().encode(box, cell), code)
    assert_close(CenterCoder().decode(code, cell), box)


@given(box_pairs())
def test_decode_undoes_encode_at_any_boxes(pair):
    boxes, cells = pair
    coder = CenterCoder()
    assert_close(coder.decode(coder.encode(boxes, cells), cells), boxes)


def test_the_offset_is_the_fraction_of_the_centre_in_cells():
    """As CenterNet computes it, at the cell that its integer part names."""
    cells, _ = grid_points([(16, 16)], [4])
    generator = torch.Generator().manual_seed(0)
    centre, size = 64 * torch.rand(2, 50, 2, generator=generator)
    boxes = torch.cat([centre - size / 2, centre + size / 2], dim=-1)
    column, row = (centre / 4).long().unbind(-1)
    code = CenterCoder().encode(boxes, cells[row * 16 + column])
    assert_close(code, torch.cat([(centre / 4).frac(), size / 4], dim=-1), rtol=1e-5, atol=1e-5)


def test_a_negative_size_inverts_the_box():
    code = torch.tensor([[0.5, 0.5, -2.0, 1.0]])
    assert CenterCoder().decode(code, torch.tensor([CELL])).tolist() == [[22.0, 8, 14, 12]]
