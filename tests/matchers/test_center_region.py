"""Matching by the middle of ground truths: by hand, and against a plain reading."""

import math

import pytest
import torch
from matching import N, said

from detloss.boxes import grid_points
from detloss.matchers import CenterRegionMatcher
from detloss.tensors import without_host_sync

STRIDES = [8, 16]
SHAPES = [(6, 5), (3, 2)]
POINTS, LEVEL_SIZES = grid_points(SHAPES, STRIDES)
ROW, OF_ROW = grid_points([(1, 4)], [8])
"""Centres at x of 4, 12, 20 and 28, y of 4."""


def random_truths(count, seed):
    """(count, 4) boxes whose centres are on the grid, some reaching over its border."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([40.0, 48.0])
    half = torch.rand(count, 2, generator=generator).mul(3).exp() * 1.5
    return torch.cat([centre - half, centre + half], dim=1)


def cells(start, end, region, stride, count):
    """The first and the last cell of an axis whose centre is in the middle of a side."""
    middle, half = (start + end) / 2, (end - start) / 2 * region
    first = math.ceil((middle - half) / stride - 0.5)
    last = math.floor((middle + half) / stride - 0.5)
    return min(max(first, 0), count - 1), min(max(last, 0), count - 1)


def plainly(truths, region, ranges):
    """Level after level, the larger ground truths first, so that smaller ones take theirs."""
    owner = []
    for (height, width), stride, (least, most) in zip(SHAPES, STRIDES, ranges, strict=True):
        level = [N] * (height * width)

        def area(number):
            x1, y1, x2, y2 = truths[number].tolist()
            return (x2 - x1) * (y2 - y1)

        for number in sorted(range(len(truths)), key=area, reverse=True):
            if not least <= math.sqrt(area(number)) <= most:
                continue
            x1, y1, x2, y2 = truths[number].tolist()
            left, right = cells(x1, x2, region, stride, width)
            top, bottom = cells(y1, y2, region, stride, height)
            for row in range(top, bottom + 1):
                for column in range(left, right + 1):
                    level[row * width + column] = number
        owner += level
    return owner


@pytest.mark.parametrize("region", [0.2, 0.4, 1.0])
@pytest.mark.parametrize("ranges", [[[0, 1e4], [0, 1e4]], [[1, 24], [12, 64]]])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_a_plain_reading_gives(region, ranges, seed):
    truths = random_truths(9, seed)
    matcher = CenterRegionMatcher(region=region, scale_ranges=ranges)
    matches = matcher(POINTS, truths, level_sizes=LEVEL_SIZES)
    assert said(matches) == plainly(truths, region, ranges)
    with without_host_sync():
        assert said(matcher(POINTS, truths, level_sizes=LEVEL_SIZES)) == said(matches)


@pytest.mark.parametrize(
    ("start", "end", "owners"),
    [
        pytest.param(2.0, 22.0, [N, 0, N, N], id="the middle is from 8 to 16"),
        pytest.param(0.0, 40.0, [N, 0, 0, 0], id="from 12 to 28, both on a centre"),
        pytest.param(11.0, 21.0, [N, N, N, N], id="from 14 to 18: between two centres"),
        pytest.param(28.0, 34.0, [N, N, N, 0], id="beyond the last centre: moved to it"),
        pytest.param(-2.0, 6.0, [0, N, N, N], id="before the first"),
        pytest.param(33.0, 43.0, [N, N, N, N], id="beyond the border: it overlaps no anchor"),
        pytest.param(12.0, 12.0, [N, N, N, N], id="without an area"),
    ],
)
def test_middles_worked_by_hand(start, end, owners):
    truth = torch.tensor([[start, 0.0, end, 8.0]])
    assert said(CenterRegionMatcher()(ROW, truth, level_sizes=OF_ROW)) == owners


@pytest.mark.parametrize(
    ("side", "levels"),
    [
        pytest.param(16.0, [True, False], id="the largest scale of the first level"),
        pytest.param(16.5, [False, False], id="between the ranges"),
        pytest.param(17.0, [False, True], id="the least scale of the second"),
        pytest.param(40.0, [False, False], id="too large for all"),
    ],
)
def test_scales_worked_by_hand(side, levels):
    """Of the area: the box is four times as wide as high."""
    points = torch.tensor([[0.0, 0, 8, 8], [-4, -4, 12, 12]])
    truth = torch.tensor([[4 - side, 4 - side / 4, 4 + side, 4 + side / 4]])
    matcher = CenterRegionMatcher(scale_ranges=[[1, 16], [17, 32]])
    assert matcher(points, truth, level_sizes=[1, 1]).positive.tolist() == levels


def test_the_smallest_takes_a_common_anchor_and_of_equal_ones_the_first():
    wide, low = [0.0, 0, 24, 8], [8.0, 2, 16, 6]
    for truths, owner in ([wide, low], 1), ([low, wide], 0), ([wide, low, low], 1):
        matches = CenterRegionMatcher()(ROW, torch.tensor(truths), level_sizes=OF_ROW)
        assert said(matches) == [N, owner, N, N]


def test_a_region_of_0_is_the_centre():
    truths = torch.tensor([[10.0, 0, 14, 8], [18.0, 0, 23, 8]])
    matches = CenterRegionMatcher(region=0.0)(ROW, truths, level_sizes=OF_ROW)
    assert said(matches) == [N, 0, N, N]


def test_a_level_may_have_no_anchors():
    truth = torch.tensor([[10.0, 0, 14, 8]])
    matches = CenterRegionMatcher()(ROW, truth, level_sizes=[0, 4])
    assert said(matches) == [N, 0, N, N]


def test_rejects_ranges():
    with pytest.raises(
        ValueError, match=r"scale_ranges must be of a least and a largest scale each, got \[8.0, 4"
    ):
        CenterRegionMatcher(scale_ranges=[[1, 4], [8, 4]])
    matcher = CenterRegionMatcher(scale_ranges=[[1, 4]])
    message = "scale_ranges must have one entry for each of 2 levels, got 1"
    with pytest.raises(ValueError, match=message):
        matcher(ROW, torch.zeros(0, 4), level_sizes=[2, 2])
