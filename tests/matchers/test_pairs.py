"""Pairs of ground truths and anchors that come into question, and the best of them."""

import pytest
import torch
from matching import random_scene

from detloss.matchers.pairs import Pairs, overlapping, reaches
from detloss.tensors import without_host_sync


def listed(pairs):
    """The set of pairs (ground truth, anchor)."""
    if pairs.valid is None:
        return set(zip(pairs.row.tolist(), pairs.anchor.tolist(), strict=True))
    row, anchor = pairs.row.expand_as(pairs.valid), pairs.anchor.expand_as(pairs.valid)
    return set(zip(row[pairs.valid].tolist(), anchor[pairs.valid].tolist(), strict=True))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("block", [1, 64, 262_144])
def test_overlapping_pairs_are_those_that_share_an_area(shared, block, monkeypatch):
    monkeypatch.setattr("detloss.matchers.tiles.CPU_PAIRS", block)
    batch = random_scene(2, 4, shared=shared)
    batch.truths.claims[4] = False
    expected = set()
    for row, (box, image) in enumerate(
        zip(batch.truths.boxes.tolist(), batch.truths.image.tolist(), strict=True)
    ):
        for anchor, other in enumerate(batch.anchors[0 if shared else image].tolist()):
            across = min(box[2], other[2]) > max(box[0], other[0])
            if across and min(box[3], other[3]) > max(box[1], other[1]) and row != 4:
                expected.add((row, image * 200 + anchor))
    pairs = overlapping(batch, batch.anchors, batch.truths.boxes)
    assert listed(pairs) == expected
    assert pairs.valid is None
    row, anchor = batch.row_of_images, batch.anchor_of_images
    every = reaches(batch, batch.anchors, batch.truths.boxes, row, anchor)
    assert listed(Pairs(batch.rows, row, anchor, every & batch.truths.claims[row])) == expected
    with without_host_sync():
        assert listed(overlapping(batch, batch.anchors, batch.truths.boxes)) == expected


def test_a_point_on_the_edge_is_outside():
    batch = random_scene(1, 1, anchors=3)
    points = torch.tensor([[0.0, 5], [1e-3, 5], [10.0, 5]])
    areas = torch.tensor([[0.0, 0, 10, 10]])
    reach = torch.cat([points, points], 1)[None]
    assert listed(overlapping(batch, reach, areas)) == {(0, 1)}


def test_the_cheapest_of_equal_ones_are_the_first():
    row, anchor = torch.tensor([0, 0, 0, 0, 2, 2]), torch.tensor([3, 4, 7, 9, 13, 11])
    pairs = Pairs(3, row, anchor, None)
    cost = torch.tensor([2.0, 1.0, 2.0, 0.5, 1.0, 1.0])
    anchors, costs = pairs.cheapest(cost, 3)
    assert anchors[0].tolist() == [9, 4, 3]
    assert costs.tolist() == [[0.5, 1, 2], [torch.inf] * 3, [1, 1, torch.inf]]
    assert anchors[2, :2].tolist() == [13, 11]
