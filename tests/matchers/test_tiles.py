"""Blocks of pairs: every pair that may overlap is in one, and memory stays bounded."""

import pytest
import torch
from boxgen import random_boxes

from detloss.boxes import pairwise_overlap
from detloss.boxes.planes import iou_of_planes
from detloss.matchers import MaxIoUMatcher
from detloss.matchers.tiles import CPU_PAIRS, Tiles, largest_of_each_class
from detloss.tensors import without_host_sync


@pytest.mark.parametrize("order", ["random", "sorted"])
@pytest.mark.parametrize("count", [200, 201])
def test_a_pair_that_is_left_out_shares_nothing(monkeypatch, order, count):
    monkeypatch.setattr("detloss.matchers.tiles.CPU_PAIRS", 40)
    monkeypatch.setattr("detloss.matchers.tiles.TILE", 5)
    anchors, boxes = random_boxes(count, seed=1), random_boxes(9, seed=2)
    if order == "sorted":
        anchors = anchors[anchors[:, 0].argsort()]
    overlap = pairwise_overlap(anchors, boxes)
    tiles = Tiles(anchors, boxes)
    met = torch.zeros(tiles.anchors.shape[1] * 5, 10, dtype=torch.bool)
    for chosen, near in tiles.blocks():
        assert near.numel() * 5 <= max(40, near.shape[1] * 5)
        for tile, its_boxes in zip(chosen.tolist(), near, strict=True):
            its_boxes = its_boxes[its_boxes < 9]
            assert len(its_boxes)
            assert (its_boxes.diff() > 0).all()
            place = slice(5 * tile, 5 * tile + 5)
            assert not met[place].any()
            met[place, its_boxes] = True
    met = met[:count, :9]
    assert (overlap[~met] == 0).all()
    assert (~met).any(), "culling leaves something out"


def test_pairs_are_those_of_the_tiles(monkeypatch):
    monkeypatch.setattr("detloss.matchers.tiles.TILE", 4)
    anchors, boxes = random_boxes(10, seed=1), random_boxes(3, seed=2)
    tiles = Tiles(anchors, boxes)
    overlap = iou_of_planes(*tiles.pairs(torch.tensor([2, 0]), torch.tensor([[1, 3], [0, 2]])))
    assert overlap.shape == (2, 2, 4)
    expected = pairwise_overlap(boxes, anchors)
    assert torch.equal(overlap[0, 0, :2], expected[1, 8:])
    assert torch.equal(overlap[1], expected[[0, 2], :4])
    assert (overlap[0, :, 2:] == 0).all(), "filled up with points"
    assert (overlap[0, 1] == 0).all(), "a box that is none"


@pytest.mark.parametrize("pairs_of_a_block", [1, 64, CPU_PAIRS])
def test_the_largest_of_each_class_is_that_of_its_boxes(monkeypatch, pairs_of_a_block):
    """Of two images; class 4 has no box, and the last box is none."""
    monkeypatch.setattr("detloss.matchers.tiles.CPU_PAIRS", pairs_of_a_block)
    monkeypatch.setattr("detloss.matchers.tiles.GPU_PAIRS", pairs_of_a_block)
    monkeypatch.setattr("detloss.matchers.tiles.TILE", 7)
    anchors, boxes = random_boxes(120, seed=1).view(2, -1, 4), random_boxes(20, seed=2)
    boxes[-1] = 0
    boxes, labels = boxes.view(2, -1, 4), torch.arange(20).view(2, -1) * 3 % 4
    expected = torch.zeros(2, 60, 5, dtype=torch.float64)
    for image in range(2):
        overlap = pairwise_overlap(anchors[image], boxes[image])
        for box, label in enumerate(labels[image]):
            of_class = expected[image, :, label]
            torch.maximum(of_class, overlap[:, box], out=of_class)
    found = largest_of_each_class(anchors, boxes, labels, 5, iou_of_planes)
    assert torch.equal(found, expected)
    with without_host_sync():
        found = largest_of_each_class(anchors, boxes, labels, 5, iou_of_planes)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("anchors", "boxes"), [(0, 3), (5, 0), (0, 0)])
def test_no_pairs_no_blocks(anchors, boxes):
    assert list(Tiles(random_boxes(anchors), random_boxes(boxes)).blocks()) == []


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("low_quality", [True, False])
def test_matches_do_not_depend_on_the_blocks(monkeypatch, seed, low_quality):
    generator = torch.Generator().manual_seed(seed)
    anchors, boxes = random_boxes(300, seed=seed), random_boxes(40, seed=seed + 50)
    boxes[::5] = anchors[:8].round()  # shared by several
    boxes[3] = boxes[4]  # and ties
    ignore = torch.rand(40, generator=generator) < 0.2
    matcher = MaxIoUMatcher(low_quality=low_quality)
    whole = matcher(anchors, boxes, gt_ignore=ignore)
    monkeypatch.setattr("detloss.matchers.tiles.CPU_PAIRS", 64)
    monkeypatch.setattr("detloss.matchers.tiles.TILE", 3)
    blocks = matcher(anchors, boxes, gt_ignore=ignore)
    for name in ("target_index", "positive", "ignored"):
        assert torch.equal(getattr(whole, name), getattr(blocks, name)), name


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize("pairs_of_a_block", [64, CPU_PAIRS])
def test_an_anchor_that_is_not_finite_takes_nothing_from_its_neighbours(
    monkeypatch, pairs_of_a_block, low_quality, broken
):
    monkeypatch.setattr("detloss.matchers.tiles.CPU_PAIRS", pairs_of_a_block)
    monkeypatch.setattr("detloss.matchers.tiles.TILE", 8)
    anchors = random_boxes(50, seed=1)
    boxes = anchors[:4] + 4
    matcher = MaxIoUMatcher(low_quality=low_quality)
    expected = matcher(anchors, boxes)
    anchors = torch.cat([anchors, anchors.new_tensor([[0, 0, broken, 10], [broken] * 4])])
    got = matcher(anchors, boxes)
    assert torch.equal(got.positive[:-2], expected.positive)
    assert expected.positive.any()
    assert not (got.positive | got.ignored)[-2:].any()


@pytest.mark.parametrize("broken", ["anchor", "box", "both"])
@pytest.mark.parametrize(
    "huge", [[-1e30, -1e30, 1e30, 1e30], [-3e38, 5.0, 3e38, 5.0], [3e38, 5.0, -3e38, 5.0]]
)
@pytest.mark.parametrize("pairs_of_a_block", [64, CPU_PAIRS])
def test_a_box_whose_area_overflows_takes_nothing_from_its_neighbours(
    monkeypatch, pairs_of_a_block, huge, broken
):
    monkeypatch.setattr("detloss.matchers.tiles.CPU_PAIRS", pairs_of_a_block)
    monkeypatch.setattr("detloss.matchers.tiles.TILE", 8)
    anchors = random_boxes(50, seed=1, dtype=torch.float32)
    boxes = anchors[:4] + 4
    expected = MaxIoUMatcher()(anchors, boxes)
    huge = torch.tensor([huge])
    got = MaxIoUMatcher()(
        anchors if broken == "box" else torch.cat([anchors, huge]),
        boxes if broken == "anchor" else torch.cat([boxes, huge]),
    )
    assert torch.equal(got.positive[:50], expected.positive)
    assert torch.equal(got.target_index[:50], expected.target_index)
    assert expected.positive.any()
    assert not (got.positive | got.ignored)[50:].any()
