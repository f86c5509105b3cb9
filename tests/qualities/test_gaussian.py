"""The Gaussian around an object's centre: by hand, and against the loop of the papers."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from detloss.boxes import grid_points, paired_overlap
from detloss.qualities import GaussianQuality

WIDTH, HEIGHT, STRIDE = 16, 12, 4
E2 = math.exp(-2)
CELLS, _ = grid_points([(HEIGHT, WIDTH)], [STRIDE], dtype=torch.float64)


def random_truths(count, seed):
    """(count, 4) boxes with a centre in the map, up to twice as large as it."""
    generator = torch.Generator().manual_seed(seed)
    extent = torch.tensor([WIDTH, HEIGHT], dtype=torch.float64) * STRIDE
    centre = torch.rand(count, 2, generator=generator, dtype=torch.float64) * extent
    half = torch.rand(count, 2, generator=generator, dtype=torch.float64) * extent
    return torch.cat([centre - half, centre + half], dim=1)


def slow_radius(width, height, min_overlap):
    """The least of CornerNet's three: both corners moved the same way, inwards and outwards."""
    total, area = width + height, width * height
    kept = area * (1 - min_overlap) / (1 + min_overlap)
    same_way = (total - math.sqrt(total**2 - 4 * kept)) / 2
    inwards = (2 * total - math.sqrt(4 * total**2 - 16 * (1 - min_overlap) * area)) / 8
    root = math.sqrt(4 * min_overlap**2 * total**2 + 16 * min_overlap * (1 - min_overlap) * area)
    outwards = (root - 2 * min_overlap * total) / (8 * min_overlap)
    return min(same_way, inwards, outwards)


def slow(truth, min_overlap):
    """The heat of every cell, row by row: a kernel copied around the cell of the centre."""
    x1, y1, x2, y2 = truth
    radius = int(slow_radius((x2 - x1) / STRIDE, (y2 - y1) / STRIDE, min_overlap))
    column, row = int((x1 + x2) / 2 / STRIDE), int((y1 + y2) / 2 / STRIDE)
    sigma = (2 * radius + 1) / 6
    heat = [0.0] * (WIDTH * HEIGHT)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if 0 <= column + dx < WIDTH and 0 <= row + dy < HEIGHT:
                value = math.exp(-(dx**2 + dy**2) / (2 * sigma**2))
                heat[(row + dy) * WIDTH + column + dx] = value
    return heat


def heat_of(truth, anchors=CELLS, **options):
    """(A,) the quality of every anchor with one ground truth."""
    truth = torch.as_tensor(truth, dtype=anchors.dtype).expand_as(anchors)
    return GaussianQuality(**options)(SimpleNamespace(anchors=anchors, truth_boxes=truth))


@pytest.mark.parametrize("min_overlap", [0.3, 0.7, 0.05, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_kernel_of_the_papers(min_overlap, seed):
    for truth in random_truths(12, seed):
        expected = torch.tensor(slow(truth.tolist(), min_overlap), dtype=torch.float64)
        assert_close(heat_of(truth, min_overlap=min_overlap), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("min_overlap", [0.3, 0.7, 0.01])
def test_at_the_radius_no_pair_of_corners_overlaps_less(min_overlap):
    sides = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)).double() * 50 + 0.1
    radius = GaussianQuality(min_overlap=min_overlap)._radius(sides.t())
    boxes, r = torch.cat([torch.zeros_like(sides), sides], 1), radius[:, None]
    inwards, outwards, aside = (
        paired_overlap(boxes, boxes + r * torch.tensor(signs))
        for signs in ([1, 1, -1, -1], [-1, -1, 1, 1], [1, 1, 1, 1])
    )
    assert_close(inwards, torch.full_like(inwards, min_overlap), rtol=1e-9, atol=1e-12)
    assert (outwards >= min_overlap * (1 - 1e-9)).all()
    assert (aside >= min_overlap * (1 - 1e-9)).all()


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        pytest.param([4.0, 0, 12, 4], [0.0, 0, 1, 0], id="on an edge: the cell to the right"),
        pytest.param([-10.0, -16, 22, 16], [E2, 1, E2, 0], id="8 x 8 cells: r is 1, s 1/2"),
        pytest.param([2.0, 2, 2, 2], [0.0, 0, 0, 0], id="without an area"),
        pytest.param([16.0, 4, 0, 0], [0.0, 0, 0, 0], id="inverted"),
        pytest.param([40.0, 0, 44, 4], [0.0, 0, 0, 0], id="far away"),
    ],
)
def test_values_worked_by_hand(truth, expected):
    """Of a row of 4 cells."""
    row, _ = grid_points([(1, 4)], [4])
    assert_close(heat_of(truth, row), torch.tensor(expected))


def test_cells_of_other_sides_have_their_own_radius():
    """A box of 40 px is 10 cells of 4 px, r = 2, and 2.5 of 16 px, r = 0."""
    levels, _ = grid_points([(1, 2), (1, 2)], [4, 16])
    heat = heat_of([-17.0, -17, 23, 23], levels)
    assert_close(heat, torch.tensor([1.0, math.exp(-18 / 25), 1, 0]))


def test_cells_need_not_be_square():
    """Cells of 4 x 8 px; the box has 10 x 5 of them, r = 1, and its centre in the second."""
    row, _ = grid_points([(1, 4)], [(8, 4)])
    heat = heat_of([-14.0, -16, 26, 24], row)
    assert_close(heat, torch.tensor([E2, 1, E2, 0]))


def test_an_anchor_without_a_side_has_none():
    point = torch.tensor([[6.0, 6, 6, 6]])
    assert heat_of([0.0, 0, 12, 12], point).tolist() == [0]


@pytest.mark.parametrize("value", [0.0, -0.1, 1.1])
def test_rejects_an_overlap_out_of_range(value):
    with pytest.raises(ValueError, match="GaussianQuality: min_overlap: expected a value"):
        GaussianQuality(min_overlap=value)
