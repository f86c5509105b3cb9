"""Matching of YOLOv3: by hand, and against a plain reading."""

import pytest
import torch
from matching import N, X, said

from detloss.boxes import grid_anchors, pairwise_overlap
from detloss.matchers import GridMatcher
from detloss.tensors import without_host_sync

STRIDES = [16, 8]
SHAPES = [(3, 2), (6, 5)]
SIZES = [[(16, 30), (59, 50)], [(10, 13), (33, 23)]]
ANCHORS, LEVEL_SIZES = grid_anchors(SHAPES, STRIDES, sizes=SIZES, offset=0.5)


def random_truths(count, seed):
    """(count, 4) boxes whose centres are on the grid."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([32.0, 40.0])
    half = torch.rand(count, 2, generator=generator).mul(2).exp() * 3
    return torch.cat([centre - half, centre + half], dim=1)


def plainly(truths, positive=0.5, negative=0.5):
    """Anchor by anchor and ground truth by ground truth."""
    overlap = pairwise_overlap(truths, ANCHORS).tolist()
    cells = grid_anchors(SHAPES, STRIDES, sizes=[[(s, s)] * 2 for s in STRIDES], offset=0.5)[0]
    centres = ((truths[:, :2] + truths[:, 2:]) / 2).tolist()
    responsible = [
        any(x1 <= x < x2 and y1 <= y < y2 for x, y in centres) for x1, y1, x2, y2 in cells.tolist()
    ]
    owner = []
    for anchor in range(len(ANCHORS)):
        best = max(range(len(truths)), key=lambda row: overlap[row][anchor])
        largest = overlap[best][anchor]
        taken = responsible[anchor] and largest > positive
        owner.append(best if taken else X if largest > negative else N)
    for row in range(len(truths)):
        of_row = [overlap[row][i] if responsible[i] else 0 for i in range(len(ANCHORS))]
        for anchor, value in enumerate(of_row):
            if value == max(of_row) > 0:
                owner[anchor] = row
    return owner


@pytest.mark.parametrize(("positive", "negative"), [(0.5, 0.5), (0.3, 0.2), (0.7, 0.4)])
@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_a_plain_reading_gives(seed, positive, negative):
    truths = random_truths(7, seed)
    truths[5] = truths[2]  # two that have everything in common
    matcher = GridMatcher(positive=positive, negative=negative, strides=STRIDES)
    matches = matcher(ANCHORS, truths, level_sizes=LEVEL_SIZES)
    assert said(matches) == plainly(truths, positive, negative)
    with without_host_sync():
        found = matcher(ANCHORS, truths, level_sizes=LEVEL_SIZES)
    assert said(found) == said(matches)


@pytest.mark.parametrize("pairs", [4, 40])
def test_neither_blocks_of_ground_truths_nor_of_anchors_change_a_match(pairs, monkeypatch):
    truths = random_truths(7, 0)
    monkeypatch.setattr("detloss.matchers.tiles.CPU_PAIRS", pairs)
    monkeypatch.setattr("detloss.matchers.tiles.GPU_PAIRS", pairs)
    matcher = GridMatcher(strides=STRIDES)
    assert said(matcher(ANCHORS, truths, level_sizes=LEVEL_SIZES)) == plainly(truths)
    with without_host_sync():
        assert said(matcher(ANCHORS, truths, level_sizes=LEVEL_SIZES)) == plainly(truths)


ROW = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [16, 0, 24, 8], [24, 0, 32, 8]])


@pytest.mark.parametrize(
    ("truths", "expected"),
    [
        pytest.param([[1.0, 0, 9, 8]], [0, N, N, N], id="in the cell of its centre"),
        pytest.param([[4.0, 0, 12, 8]], [N, 0, N, N], id="a centre on the border is right of it"),
        pytest.param([[14.0, 0, 18, 8]], [N, N, 0, N], id="however little it overlaps"),
        pytest.param([[40.0, 0, 48, 8]], [N, N, N, N], id="outside: none"),
        pytest.param([[4.0, 0, 4, 8]], [N, N, N, N], id="without an area: none"),
        pytest.param(
            [[0.0, 0, 16, 8], [17, 0, 21, 8]], [N, 0, 1, N], id="the other half has no centre"
        ),
        pytest.param(
            [[0.0, 0, 16, 8], [1, 0, 5, 8]], [1, 0, N, N], id="of two best anchors one is lost"
        ),
        pytest.param([[8.0, 0, 16, 8], [8, 0, 16, 4]], [N, 1, N, N], id="the last has the best"),
        pytest.param([[8.0, 0, 16, 4], [8, 0, 16, 8]], [N, 1, N, N], id="in either order"),
    ],
)
def test_cells_worked_by_hand(truths, expected):
    matches = GridMatcher(strides=[8])(ROW, torch.tensor(truths), level_sizes=[4])
    assert said(matches) == expected


def test_all_anchors_that_are_equally_good_are_taken():
    anchors = torch.cat([ROW, ROW])
    matches = GridMatcher(strides=[8])(anchors, torch.tensor([[1.0, 0, 9, 8]]), level_sizes=[8])
    assert said(matches) == [0, N, N, N, 0, N, N, N]


def test_what_overlaps_much_and_has_no_centre_is_ignored():
    """Anchors of 16 at cells of 8: IoU 3 / 5 with the second cell's anchor, where no centre is."""
    anchors = torch.tensor([[-4.0, -4, 12, 12], [4, -4, 20, 12]])
    truth = torch.tensor([[-0.1, -4, 15.9, 12]])
    matches = GridMatcher(strides=[8])(anchors, truth, level_sizes=[2])
    assert said(matches) == [0, X]
    matches = GridMatcher(strides=[8], positive=0.7, negative=0.7)(anchors, truth, level_sizes=[2])
    assert said(matches) == [0, N]


def test_rejects_a_background_that_is_positive():
    with pytest.raises(ValueError, match=r"negative must be at most positive \(0.5\), got 0.6"):
        GridMatcher(negative=0.6)


def test_asks_for_level_sizes_and_a_stride_for_each():
    with pytest.raises(ValueError, match="level_sizes must add up to the 4 anchors, got None"):
        GridMatcher(strides=[8])(ROW, torch.zeros(0, 4))
    with pytest.raises(ValueError, match="strides must have one entry for each of 2 levels, got 1"):
        GridMatcher(strides=[8])(ROW, torch.zeros(0, 4), level_sizes=[2, 2])
