"""Matching of YOLOv5: by hand, and against a plain reading."""

import pytest
import torch
from matching import N, said
from scenes import predictions_for
from torch.testing import assert_close

import detloss
from detloss.boxes import grid_anchors
from detloss.matchers import YOLORatioMatcher
from detloss.tensors import without_host_sync

STRIDES = [8, 16]
SHAPES = [(6, 5), (3, 2)]
SIZES = [[(10, 13), (33, 23)], [(16, 30), (59, 50)]]
ANCHORS, LEVEL_SIZES = grid_anchors(SHAPES, STRIDES, sizes=SIZES, offset=0.5)
MATCHER = YOLORatioMatcher(strides=STRIDES, anchors_per_cell=2)


def random_truths(count, seed):
    """(count, 4) boxes whose centres are on the grid, seldom on a border of cells."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([40.0, 48.0])
    half = torch.rand(count, 2, generator=generator).mul(3).exp() * 1.5
    return torch.cat([centre - half, centre + half], dim=1)


def plainly(truths, max_ratio=4.0):
    """Pairs, and of each anchor the last in the order of the original: a loop in a loop."""
    pairs, last, start = set(), {}, 0
    for (height, width), stride, sizes in zip(SHAPES, STRIDES, SIZES, strict=True):
        for side in range(5):
            for number, (x1, y1, x2, y2) in enumerate(truths.tolist()):
                x, y = (x1 + x2) / 2 / stride, (y1 + y2) / 2 / stride
                column, row = int(x), int(y)
                near = [True, x % 1 < 0.5, y % 1 < 0.5, x % 1 > 0.5, y % 1 > 0.5][side]
                column += (0, -1, 0, 1, 0)[side]
                row += (0, 0, -1, 0, 1)[side]
                if not near or not (0 <= column < width and 0 <= row < height):
                    continue
                for kind, (w, h) in enumerate(sizes):
                    ratios = (x2 - x1) / w, w / (x2 - x1), (y2 - y1) / h, h / (y2 - y1)
                    if max(ratios) < max_ratio:
                        anchor = start + (row * width + column) * len(sizes) + kind
                        pairs.add((number, anchor))
                        last[anchor] = number
        start += height * width * len(sizes)
    return [[anchor, number] for number, anchor in sorted(pairs)], last


@pytest.mark.parametrize("max_ratio", [2.0, 4.0])
@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_a_plain_reading_gives(seed, max_ratio):
    truths = random_truths(7, seed)
    matcher = YOLORatioMatcher(strides=STRIDES, anchors_per_cell=2, max_ratio=max_ratio)
    matches = matcher(ANCHORS, truths, level_sizes=LEVEL_SIZES)
    pairs, last = plainly(truths, max_ratio)
    assert matches.pairs.tolist() == pairs
    assert said(matches) == [last.get(anchor, N) for anchor in range(len(ANCHORS))]
    with without_host_sync():
        found = matcher(ANCHORS, truths, level_sizes=LEVEL_SIZES)
    assert found.listed_pairs.tolist() == pairs
    assert said(found) == said(matches)
    assert len(found.pairs) == len(found.is_pair) == 7 * 3 * 2 * 2


def test_in_blocks_of_ground_truths_it_is_the_same(monkeypatch):
    truths = random_truths(7, 0)
    expected = MATCHER(ANCHORS, truths, level_sizes=LEVEL_SIZES)
    other = MATCHER(ANCHORS, truths[:3], level_sizes=LEVEL_SIZES)
    monkeypatch.setattr("detloss.matchers.tiles.GPU_PAIRS", 4 * len(ANCHORS))
    monkeypatch.setattr("detloss.matchers.yolo_ratio.CPU_PAIRS", 4 * len(ANCHORS))
    call = {"anchors": [ANCHORS] * 2, "gt_boxes": [truths, truths[:3]], "level_sizes": LEVEL_SIZES}
    batch = MATCHER.batch(**call)
    with without_host_sync():
        batch += MATCHER.batch(**call)
    for found, alone in zip(batch, (expected, other) * 2, strict=True):
        assert found.listed_pairs.tolist() == alone.pairs.tolist()
        assert said(found) == said(alone)


ROW, OF_ROW = grid_anchors([(1, 4)], [8], sizes=[[(8, 8)]], offset=0.5)


@pytest.mark.parametrize(
    ("centre", "cells"),
    [
        pytest.param(11.0, [0, 1], id="left of the middle of the second: the first, too"),
        pytest.param(13.0, [1, 2], id="right of it: the third"),
        pytest.param(12.0, [1], id="in the middle: itself alone"),
        pytest.param(16.0, [1, 2], id="on a border: the cells of both sides"),
        pytest.param(1.0, [0], id="no cell over the edge"),
        pytest.param(-3.0, [0], id="a centre over the edge has its neighbour"),
        pytest.param(-5.0, [], id="but not from farther than half a cell"),
    ],
)
def test_cells_worked_by_hand(centre, cells):
    truth = torch.tensor([[centre - 4, 0.0, centre + 4, 8.0]])
    matches = YOLORatioMatcher(strides=[8], anchors_per_cell=1)(ROW, truth, level_sizes=OF_ROW)
    assert matches.pairs.tolist() == [[cell, 0] for cell in cells]


@pytest.mark.parametrize(
    ("sides", "positive"),
    [
        pytest.param((31.0, 8.0), True, id="less than 4 times as wide"),
        pytest.param((32.0, 8.0), False, id="4 times is too much"),
        pytest.param((8.0, 2.1), True, id="more than a quarter as high"),
        pytest.param((8.0, 2.0), False, id="a quarter is too little"),
        pytest.param((8.0, 0.0), False, id="without an area"),
    ],
)
def test_ratios_worked_by_hand(sides, positive):
    width, height = sides
    truth = torch.tensor([[12 - width / 2, 4 - height / 2, 12 + width / 2, 4 + height / 2]])
    matches = YOLORatioMatcher(strides=[8], anchors_per_cell=1)(ROW, truth, level_sizes=OF_ROW)
    assert matches.positive.tolist() == [False, positive, False, False]


@pytest.mark.parametrize(
    ("centres", "owners"),
    [
        pytest.param([11.0, 13.0], [0, 1, 1, N], id="in one cell the later object is named"),
        pytest.param([13.0, 11.0], [1, 1, 0, N], id="in whatever order"),
        pytest.param([21.0, 19.0], [N, 1, 1, 0], id="left and right come after the cell itself"),
        pytest.param([15.0, 9.0], [1, 1, 0, N], id="of objects in two cells, too"),
        pytest.param([17.0, 13.0], [N, 0, 1, N], id="the neighbour is named, not the later one"),
    ],
)
def test_who_is_named_where_an_anchor_answers_for_several(centres, owners):
    truths = torch.tensor([[centre - 4, 0.0, centre + 4, 8.0] for centre in centres])
    matches = YOLORatioMatcher(strides=[8], anchors_per_cell=1)(ROW, truths, level_sizes=OF_ROW)
    assert said(matches) == owners
    assert len(matches.pairs) == 4


def test_of_more_anchors_than_a_cell_should_have_the_first_are_taken():
    anchors, sizes = grid_anchors([(1, 2)], [8], sizes=[[(8, 8)] * 5], offset=0.5)
    matcher = YOLORatioMatcher(strides=[8], anchors_per_cell=1)
    truth = torch.tensor([[0.0, 0, 8, 8]])
    matches = matcher(anchors, truth, level_sizes=sizes)
    assert matches.pairs.tolist() == [[0, 0], [1, 0], [2, 0]]
    with without_host_sync():
        found = matcher(anchors, truth, level_sizes=sizes)
    assert found.listed_pairs.tolist() == matches.pairs.tolist()


def test_one_that_overlaps_none_of_its_anchors_claims_none():
    """Anchors that are smaller than their cells, between which an object fits."""
    anchors = torch.tensor([[7.0, 7, 9, 9]])
    matcher = YOLORatioMatcher(strides=[16], anchors_per_cell=1)
    for corner, positive in ((1.0, False), (6.0, True)):
        truth = torch.tensor([[corner, 7, corner + 2, 9]])
        matches = matcher(anchors, truth, level_sizes=[1])
        assert matches.positive.tolist() == [positive]
        assert len(matches.pairs) == positive


def test_pairs_of_a_batch_are_of_their_image():
    truths = [random_truths(count, count) for count in (3, 0, 5)]
    batch = MATCHER.batch([ANCHORS] * 3, truths, level_sizes=LEVEL_SIZES)
    for found, of_image in zip(batch, truths, strict=True):
        assert found.pairs.tolist() == plainly(of_image)[0]


def test_an_image_without_objects_has_no_pairs():
    assert MATCHER(ANCHORS, torch.zeros(0, 4), level_sizes=LEVEL_SIZES).pairs.shape == (0, 2)


def test_rejects_a_ratio_that_no_box_has():
    with pytest.raises(ValueError, match="max_ratio must be greater than 1, got 1"):
        YOLORatioMatcher(max_ratio=1)


def test_asks_for_level_sizes_and_a_stride_for_each():
    with pytest.raises(ValueError, match="level_sizes must add up to the 72 anchors, got None"):
        MATCHER(ANCHORS, torch.zeros(0, 4))
    with pytest.raises(ValueError, match="strides must have one entry for each of 1 levels, got 2"):
        MATCHER(ANCHORS, torch.zeros(0, 4), level_sizes=[72])


def criterion_and_call(objects):
    """A criterion with this matcher, and a batch of two images, one without objects."""
    strides = {"strides": STRIDES}
    per_level = {"type": "rows", "per": "level"}
    criterion = detloss.build(
        {
            "matcher": {"type": "yolo_ratio", "anchors_per_cell": 2, **strides},
            "coder": {"type": "yolo", **strides},
            "classification": {"type": "sigmoid_cross_entropy", "over": "positives"},
            "objectness": {
                "type": "sigmoid_cross_entropy",
                "label": {"type": "iou", "kind": "ciou"},
                "level_weights": [4.0, 1.0],
            },
            "box": {"type": "ciou"},
            "normalizer": per_level,
        }
    )
    predictions = predictions_for(criterion, 2, len(ANCHORS))
    boxes = random_truths(objects, 0)
    targets = [
        {
            "boxes": truths,
            "labels": torch.arange(len(truths)) % 3,
            "weights": torch.arange(len(truths)) / 2,
        }
        for truths in (boxes[:0], boxes)
    ]
    return criterion, predictions, targets


@pytest.mark.parametrize("objects", [0, 6])
@pytest.mark.parametrize("way", ["without a host sync", "compiled"])
def test_a_criterion_has_the_same_loss_in_every_way(way, objects):
    torch._dynamo.reset()
    criterion, predictions, targets = criterion_and_call(objects)
    leaves = list(predictions.values())

    def loss(criterion):
        call = {"anchors": ANCHORS, "level_sizes": LEVEL_SIZES}
        output = criterion(predictions, targets, **call)
        return output.terms, torch.autograd.grad(output.total, leaves)

    expected = loss(criterion)
    if way == "compiled":
        found = loss(torch.compile(criterion, fullgraph=True, backend="aot_eager"))
    else:
        with without_host_sync():
            found = loss(criterion)
    assert_close(found, expected)
    assert (expected[0]["box"] > 0) == (objects > 0)


def test_rows_are_pairs_and_the_map_has_the_label_of_the_one_it_names():
    criterion, predictions, targets = criterion_and_call(6)
    call = {"anchors": ANCHORS, "level_sizes": LEVEL_SIZES}
    output = criterion(predictions, targets, **call)
    pairs = output.matches[1].pairs
    assert len(pairs) > output.matches[1].positive.sum() > 0
    of_level = pairs[:, 0] < LEVEL_SIZES[0]
    assert output.divisors["box"].tolist() == [of_level.sum(), (~of_level).sum()]
    assert output.divisors["objectness"].tolist() == [2 * size for size in LEVEL_SIZES]
