"""Lengths of pairs of boxes, worked by hand. What they give is tested with the overlaps."""

import pytest
import torch
from torch.testing import assert_close

from detloss.boxes import box_area, paired_overlap
from detloss.boxes.lengths import Lengths

UNIT = [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("box", "width", "height"),
    [
        pytest.param([1.0, 2.0, 4.0, 9.0], 3.0, 7.0, id="proper"),
        pytest.param([4.0, 2.0, 1.0, 9.0], 0.0, 7.0, id="inverted in x only"),
        pytest.param([4.0, 9.0, 1.0, 2.0], 0.0, 0.0, id="inverted"),
    ],
)
def test_sides_and_area_of_a_box(box, width, height):
    box = torch.tensor(box)
    assert Lengths(box, torch.tensor(UNIT)).sides.tolist() == [width, height]
    assert box_area(box) == width * height


@pytest.mark.parametrize(
    ("box", "shared", "hull"),
    [
        pytest.param([0.5, 0.25, 2.0, 3.0], 0.375, (2.0, 3.0), id="1/2 x 3/4 shared"),
        pytest.param([0.25, 0.25, 0.75, 0.75], 0.25, (1.0, 1.0), id="inside"),
        pytest.param([3.0, -1.0, 4.0, 0.0], 0.0, (4.0, 2.0), id="apart, the hull spans the gap"),
        pytest.param([0.75, 0.75, 0.25, 0.25], 0.0, (1.0, 1.0), id="inverted inside"),
    ],
)
def test_intersection_and_hull(box, shared, hull):
    box, unit = torch.tensor(box), torch.tensor(UNIT)
    for pairs in (Lengths(box, unit), Lengths(unit, box)):
        assert pairs.shared_sides.prod() == shared
        assert pairs.hull_sides.tolist() == list(hull)


def test_two_inverted_boxes_have_no_hull():
    # taken as they come, the sides would be -2 and -2, the hull 4 and GIoU -1
    inverted = torch.tensor([2.0, 2.0, 0.0, 0.0])
    assert (Lengths(inverted, inverted).hull_sides < 1e-15).all()
    assert paired_overlap(inverted, inverted, kind="giou") == 0


def test_overhang_and_offset():
    pairs = Lengths(torch.tensor([1.0, 2.0, 5.0, 9.0]), torch.tensor([0.0, 4.0, 2.0, 5.0]))
    assert [overhang.tolist() for overhang in pairs.overhang] == [[1, -2], [-3, -4]]
    assert pairs.offset.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("target", "sides", "hull"),
    [
        pytest.param([0.0, 0, 2, 1], [2, 1], [4, 3], id="none is short"),
        pytest.param([0.0, 0, 2, 0.25], [2, 0.5], [4, 3.25], id="by 1/4, and the hull with it"),
        pytest.param([3.0, 1, 1, 3], [0.5, 2], [3.5, 2], id="inverted, so 0 long"),
    ],
)
def test_a_short_side_of_the_second_box_is_lengthened(target, sides, hull):
    pairs = Lengths(torch.tensor([1.0, 1.0, 4.0, 3.0]), torch.tensor(target), 0.5)
    assert pairs.target_sides.tolist() == sides
    assert pairs.hull_sides.tolist() == hull
    assert pairs.sides.tolist() == [3, 2]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        # target 2 wide and 4 high: s / (d + s)^2 / 2
        pytest.param([1.0, 1, 3, 3], [0.0, 0, 0, 0], id="upright: none"),
        pytest.param([3.0, 1, 1, 3], [1 / 16, 0, -1 / 16, 0], id="inverted by 2 in x: 2 / 16 / 2"),
        pytest.param([1.0, 5, 3, 1], [0, 1 / 32, 0, -1 / 32], id="by 4 in y: 4 / 64 / 2"),
        pytest.param([3.0, 5, 1, 1], [1 / 16, 1 / 32, -1 / 16, -1 / 32], id="in both"),
        pytest.param([1.0, 1, 1, 3], [1 / 8, 0, -1 / 8, 0], id="flat: half of 2 / 4 / 2"),
        pytest.param([21.0, 0, 1, 1], [1 / 484, 0, -1 / 484, 0], id="far: 2 / 22^2 / 2"),
    ],
)
def test_turning_worked_by_hand(box, expected):
    box = torch.tensor([box], requires_grad=True)
    value = Lengths(box, torch.tensor([[0.0, 0, 2, 4]]), 1e-3).turning
    value.backward()
    assert value == 0
    assert_close(box.grad, torch.tensor([expected]))


def test_turning_towards_a_flat_target_is_bounded_by_the_least_side():
    box = torch.tensor([[1e-30, 0.0, 0.0, 0.0]], requires_grad=True)
    Lengths(box, torch.zeros(1, 4), 0.25).turning.backward()
    assert_close(box.grad, torch.tensor([[2.0, 1.0, -2.0, -1.0]]))
