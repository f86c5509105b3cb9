"""Blocks of pairs: every pair that may overlap is in one, and memory stays bounded."""

import pytest
import torch
from boxgen import random_boxes

from detloss.boxes import pairwise_overlap
from detloss.boxes.overlaps import planes
from detloss.kernels import pairs
from detloss.kernels.pairs import blocks_of_pairs
from detloss.matchers import MaxIoUMatcher


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(pairs, "CPU_PAIRS", 40)
    monkeypatch.setattr(pairs, "CPU_ANCHORS", 3)


@pytest.mark.parametrize("order", ["random", "sorted"])
def test_a_pair_that_is_left_out_shares_nothing(small_blocks, order):
    anchors, boxes = random_boxes(200, seed=1), random_boxes(9, seed=2)
    if order == "sorted":
        anchors = anchors[anchors[:, 0].argsort()]
    overlap = pairwise_overlap(anchors, boxes)
    met = torch.zeros_like(overlap, dtype=torch.bool)
    for part, near in blocks_of_pairs(planes(anchors), planes(boxes)):
        assert (near.diff() > 0).all()
        assert not met[part][:, near].any()
        met[part] |= torch.isin(torch.arange(9), near)
    assert (overlap[~met] == 0).all()
    assert (~met).any(), "culling leaves something out"


@pytest.mark.parametrize(("anchors", "boxes"), [(0, 3), (5, 0), (0, 0)])
def test_no_pairs_no_blocks(anchors, boxes):
    assert list(blocks_of_pairs(planes(random_boxes(anchors)), planes(random_boxes(boxes)))) == []


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
    monkeypatch.setattr(pairs, "CPU_PAIRS", 64)
    monkeypatch.setattr(pairs, "CPU_ANCHORS", 1)
    blocks = matcher(anchors, boxes, gt_ignore=ignore)
    for name in ("target_index", "positive", "ignored"):
        assert torch.equal(getattr(whole, name), getattr(blocks, name)), name


def test_an_anchor_that_is_not_a_number_takes_nothing_from_its_neighbours():
    anchors = random_boxes(50, seed=1)
    boxes = anchors[:4] + 0.1
    expected = MaxIoUMatcher(low_quality=False)(anchors, boxes)
    broken = torch.cat([anchors, torch.full((1, 4), torch.nan)])
    got = MaxIoUMatcher(low_quality=False)(broken, boxes)
    assert torch.equal(got.positive[:-1], expected.positive)
    assert expected.positive.any()
