"""Pairs of ground truths and anchors, and who gets an anchor that several have chosen."""

from dataclasses import replace

import pytest
import torch
from boxgen import random_boxes
from torch.testing import assert_close

from detloss.matchers.claims import (
    Pairs,
    Scene,
    Truths,
    contest,
    first_to_choose,
    give_to_best_of_all,
    overlapping,
    reaches,
)
from detloss.tensors import without_host_sync


def scene(images, most, *, anchors=200, shared=True, seed=0):
    """Images with so many ground truths and anchors each, within 100 pixels of 0."""
    boxes = random_boxes(images * most, seed=seed, dtype=torch.float32)
    image = torch.arange(images).repeat_interleave(most)
    groups = 1 if shared else images
    return Scene(
        images=images,
        anchors=random_boxes(groups * anchors, seed=seed + 1, dtype=torch.float32).view(
            groups, anchors, 4
        ),
        truths=Truths(boxes, image, torch.ones(len(boxes), dtype=torch.bool), None),
    )


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
    batch = scene(2, 4, shared=shared)
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
    assert reaches(batch, batch.anchors, batch.truths.boxes, pairs.row, pairs.anchor).all()
    with without_host_sync():
        assert listed(overlapping(batch, batch.anchors, batch.truths.boxes)) == expected


def test_a_point_on_the_edge_is_outside():
    batch = scene(1, 1, anchors=3)
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


def test_a_contested_anchor_goes_to_the_highest_priority_then_to_the_first():
    batch = scene(1, 3, anchors=4)
    anchor = torch.tensor([[0, 1], [1, 2], [2, 0]])
    priority = torch.tensor([[0.5, 0.2], [0.3, 0.7], [0.7, 0.9]])
    chosen = torch.tensor([[True, True], [True, True], [True, False]])
    assert contest(batch, batch.every_row, anchor, chosen, priority).tolist() == [0, 1, 1, 3]


def test_the_first_to_choose_is_who_wins_where_all_are_equal():
    batch = scene(2, 3, anchors=50)
    generator = torch.Generator().manual_seed(0)
    anchor = torch.randint(50, (6, 20), generator=generator) + 50 * batch.truths.image[:, None]
    chosen = torch.rand(6, 20, generator=generator) < 0.5
    found = first_to_choose(batch, batch.every_row, anchor, chosen)
    assert found.unique().tolist() == [0, 1, 2, 3, 4, 5, 6]
    equal = torch.zeros(6, 20)
    assert torch.equal(found, contest(batch, batch.every_row, anchor, chosen, equal))


@pytest.mark.parametrize("kind", ["iou", "ciou"])
def test_overlaps_are_the_same_looked_up_as_computed(kind):
    batch = replace(scene(2, 3), pred_boxes=random_boxes(400, seed=2, dtype=torch.float32))
    generator = torch.Generator().manual_seed(0)
    row = torch.randint(6, (50,), generator=generator)
    anchor = torch.randint(200, (50,), generator=generator) + 200 * batch.truths.image[row]
    expected = batch.overlap(row, anchor, kind)
    assert (expected > 0).any()
    assert_close(batch.overlaps(kind)(row, anchor), expected)
    with without_host_sync():
        overlap_of = batch.overlaps(kind)
        assert_close(overlap_of(row, anchor), expected)
        every = overlap_of(batch.row_of_images, batch.anchor_of_images)
    assert every.shape == (2, 3, 200)
    assert_close(every.view(6, 200)[row, anchor % 200], expected)


def test_only_a_contested_anchor_goes_to_the_best_of_all():
    """Of two images, where only rows 0, 2 and 3 may claim anchors."""
    batch = scene(2, 3, anchors=2)
    batch.truths.claims[[1, 4, 5]] = False
    overlap = torch.tensor([[0.1, 0.2], [0.9, 0.9], [0.3, 0.0], [0.5, 0.6], [0, 0], [0, 0]])
    anchor = torch.tensor([[0, 1], [0, 1], [1, 0], [2, 3], [2, 3], [2, 3]])
    chosen = torch.tensor(
        [[True, True], [False] * 2, [True, True], [True, False], *[[False] * 2] * 2]
    )
    owner = contest(batch, batch.every_row, anchor, chosen, torch.ones(6, 2))
    assert owner.tolist() == [0, 0, 3, 6]
    measure = lambda row, anchor: overlap[row, anchor % 2]  # noqa: E731
    found = give_to_best_of_all(batch, owner, anchor, chosen, measure)
    assert found.tolist() == [2, 0, 3, 6]
    with without_host_sync():
        assert give_to_best_of_all(batch, owner, anchor, chosen, measure).tolist() == [2, 0, 3, 6]
