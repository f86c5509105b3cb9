"""Matching by the centres of ground truths: by hand, and against a plain reading."""

import math

import pytest
import torch
from matching import N, X, said

from detloss.boxes import grid_points
from detloss.matchers import CenterPointMatcher
from detloss.tensors import without_host_sync

ROW, _ = grid_points([(1, 4)], [8])
HEIGHT, WIDTH, STRIDE = 5, 6, 4
CELLS, _ = grid_points([(HEIGHT, WIDTH)], [STRIDE])


def random_truths(count, seed):
    """(count, 4) boxes whose centres are on the grid or a cell beyond it."""
    generator = torch.Generator().manual_seed(seed)
    extent = torch.tensor([WIDTH + 2.0, HEIGHT + 2]) * STRIDE
    centre = torch.rand(count, 2, generator=generator) * extent - STRIDE
    half = torch.rand(count, 2, generator=generator) * 12 + 0.5
    return torch.cat([centre - half, centre + half], dim=1)


def plainly(truths, contested):
    """The original's loop: a ground truth after the other writes itself into its cell."""
    owner = [N] * (HEIGHT * WIDTH)

    def area(number):
        x1, y1, x2, y2 = truths[number].tolist()
        return (x2 - x1) * (y2 - y1)

    order = list(range(len(truths)))
    if contested == "smallest":
        order.sort(key=lambda number: (-area(number), -number))
    for number in order:
        x1, y1, x2, y2 = truths[number].tolist()
        column, row = (math.floor(c / STRIDE) for c in ((x1 + x2) / 2, (y1 + y2) / 2))
        if 0 <= column < WIDTH and 0 <= row < HEIGHT:
            owner[row * WIDTH + column] = number
    return owner


@pytest.mark.parametrize("contested", ["smallest", "last"])
@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_a_plain_reading_gives(contested, seed):
    truths = random_truths(20, seed)  # so that many share a cell
    truths[15:] = truths[:5]
    matcher = CenterPointMatcher(contested=contested)
    expected = plainly(truths, contested)
    assert said(matcher(CELLS, truths)) == expected
    assert len({*expected, N}) < 17
    with without_host_sync():
        assert said(matcher(CELLS, truths)) == expected


@pytest.mark.parametrize(
    ("truth", "owners"),
    [
        pytest.param([2.0, -20, 12, 28], [0, N, N, N], id="a centre at x of 7"),
        pytest.param([2.0, -20, 14, 28], [N, 0, N, N], id="on an edge: the cell to the right"),
        pytest.param([0.0, -8, 14, 8], [0, N, N, N], id="on the upper edge"),
        pytest.param([0.0, 4, 14, 12], [N, N, N, N], id="on the lower edge: below the row"),
        pytest.param([24.0, 0, 60, 8], [N, N, N, N], id="beyond the row, which it overlaps"),
        pytest.param([4.0, 4, 4, 4], [N, N, N, N], id="without an area"),
        pytest.param([12.0, 8, 2, 0], [N, N, N, N], id="inverted"),
    ],
)
@pytest.mark.parametrize("contested", ["smallest", "last"])
def test_centres_worked_by_hand(truth, owners, contested):
    assert said(CenterPointMatcher(contested=contested)(ROW, torch.tensor([truth]))) == owners


def test_who_has_a_common_cell():
    large, small = [0.0, 0, 14, 8], [5.0, 2, 9, 6]
    for truths, smallest, last in (
        ([large, small], 1, 1),
        ([small, large], 0, 1),
        ([large, small, small, large], 1, 3),
    ):
        for contested, owner in (("smallest", smallest), ("last", last)):
            matches = CenterPointMatcher(contested=contested)(ROW, torch.tensor(truths))
            assert said(matches) == [owner, N, N, N]


def test_the_last_is_not_an_ignore_region():
    truths = torch.tensor([[0.0, 0, 14, 8], [0, 0, 14, 8], [0, 0, 32, 8]])
    matcher = CenterPointMatcher(contested="last")
    matches = matcher(ROW, truths, gt_ignore=torch.tensor([False, False, True]))
    assert said(matches) == [1, X, X, X]


def test_each_level_has_a_cell():
    levels, _ = grid_points([(2, 2), (1, 1)], [8, 16])
    matches = CenterPointMatcher()(levels, torch.tensor([[1.0, 1, 5, 5]]))
    assert said(matches) == [0, N, N, N, 0]
