"""Boxes as planes: by hand, and their overlaps against those of boxes, to the bit."""

import pytest
import torch
from boxgen import random_boxes

from detloss.boxes import box_area, pairwise_overlap
from detloss.boxes.planes import (
    area_of_planes,
    as_points,
    centres,
    has_centre,
    iof_of_planes,
    iou_of_planes,
    middle_of,
    planes,
    share_area,
)


def of(*boxes):
    """Planes of boxes that are listed."""
    return planes(torch.tensor(boxes))


def test_planes_are_filled_up_with_points():
    found = planes(torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]), 2)
    assert found.tolist() == [[1, 5, 9, 0], [2, 6, 10, 0], [3, 7, 11, 0], [4, 8, 12, 0]]
    assert planes(torch.zeros(4, 4), 2).shape == (4, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "measure"), [("iou", iou_of_planes), ("iof", iof_of_planes)])
def test_overlaps_are_those_of_boxes_to_the_bit(kind, measure, dtype):
    """Among them boxes without an area, and one that is inverted."""
    a, b = random_boxes(60, seed=1, dtype=dtype), random_boxes(50, seed=2, dtype=dtype)
    a[0], b[0], b[1, 2] = a[0, [0, 1, 0, 1]], 0, b[1, 0]
    a[1] = a[1, [2, 3, 0, 1]]
    overlap = pairwise_overlap(a, b, kind=kind)
    assert overlap.count_nonzero() > 50
    assert torch.equal(measure(planes(a)[:, :, None], planes(b)[:, None]), overlap)


def test_the_area_is_that_of_boxes_and_negative_where_one_side_is_inverted():
    boxes = random_boxes(20)
    assert torch.equal(area_of_planes(planes(boxes)), box_area(boxes))
    assert area_of_planes(of([2.0, 0, 0, 3])).tolist() == [-6]


@pytest.mark.parametrize(
    ("box", "shares"),
    [
        pytest.param([9.0, 9.0, 12.0, 12.0], True, id="a corner of 1 x 1"),
        pytest.param([10.0, 0.0, 12.0, 10.0], False, id="side by side"),
        pytest.param([2.0, 2.0, 3.0, 3.0], True, id="inside"),
        pytest.param([5.0, 5.0, 5.0, 5.0], True, id="a point inside"),
        pytest.param([0.0, 5.0, 0.0, 5.0], False, id="a point on the edge"),
        pytest.param([20.0, 5.0, 30.0, 6.0], False, id="apart in x alone"),
        pytest.param([5.0, 20.0, 6.0, 30.0], False, id="apart in y alone"),
    ],
)
def test_what_shares_an_area_with_a_square_of_ten(box, shares):
    square, other = of([0.0, 0, 10, 10]), of(box)
    assert share_area(square, other).item() is shares
    assert share_area(other, square).item() is shares


def test_centres_are_finite_where_the_sum_of_the_edges_is_not():
    assert centres(of([0.0, 2, 4, 8])).tolist() == [[2], [5]]
    assert centres(of([3e38, 0, 3e38, 1])).isfinite().all()


def test_the_middle_has_the_same_centre():
    assert middle_of(of([0.0, 2, 4, 10]), 0.5).t().tolist() == [[1, 4, 3, 8]]


@pytest.mark.parametrize(
    ("truth", "inside"),
    [
        pytest.param([6.0, 6.0, 10.0, 10.0], True, id="8, 8: the low corner belongs to the cell"),
        pytest.param([14.0, 8.0, 18.0, 12.0], False, id="16, 10: the high edge does not"),
        pytest.param([8.0, 14.0, 12.0, 18.0], False, id="10, 16"),
        pytest.param([12.0, 12.0, 12.0, 14.0], False, id="a truth without an area"),
        pytest.param([14.0, 12.0, 10.0, 14.0], False, id="an inverted one"),
    ],
)
def test_which_truth_has_its_centre_in_a_cell(truth, inside):
    assert has_centre(of(truth), of([8.0, 8, 16, 16])).item() is inside


def test_boxes_as_points():
    boxes = torch.tensor([[[0.0, 2, 4, 8]], [[1, 1, 1, 1]]])
    assert as_points(boxes).tolist() == [[[2, 5, 2, 5]], [[1, 1, 1, 1]]]
