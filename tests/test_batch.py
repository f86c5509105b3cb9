"""A matched batch computes each thing once, with the gradient that it has."""

from dataclasses import replace

import torch
from scenes import grid_anchors, random_predictions, random_targets

import detloss
from detloss.batch import MatchedBatch, computed_once
from detloss.inputs import Inputs
from detloss.qualities import IoUQuality
from detloss.tensors import without_host_sync

ANCHORS = grid_anchors()


def batch_of(counts=(3, 0)):
    criterion = detloss.build({"matcher": {"type": "max_iou"}, "box": {"type": "giou"}})
    targets = random_targets(list(counts))
    predictions = random_predictions(len(counts), len(ANCHORS))
    matches = criterion.match(targets, anchors=ANCHORS)
    inputs = Inputs(predictions, targets, [ANCHORS] * len(counts))
    return MatchedBatch(inputs, matches, criterion.coder), predictions


def test_a_property_is_computed_once():
    calls = []

    class Counted:
        @computed_once
        def value(self):
            """What is counted."""
            calls.append(self)
            return 7

    counted = Counted()
    assert counted.value == counted.value == 7
    assert len(calls) == 1
    assert Counted.value.__doc__ == "What is counted."


def test_decoded_boxes_have_their_gradient_whoever_asks_first():
    batch, predictions = batch_of()
    with torch.no_grad():
        batch.quality(IoUQuality())
    batch.decoded("box_regression").sum().backward()
    assert (predictions["box_regression"].grad != 0).any()


def test_a_quality_is_a_constant_and_asked_once():
    batch, _ = batch_of()
    calls = []

    class Counted(IoUQuality):
        def forward(self, positives):
            calls.append(self)
            return super().forward(positives)

    first, second = (batch.quality(Counted()) for _ in range(2))
    assert first is second
    assert len(calls) == 1
    assert not first.requires_grad


def of_positives(batch):
    quality = batch.quality(IoUQuality())
    return [batch.truth, batch.anchors, batch.truth_boxes, batch.image, quality]


def test_positives_without_a_host_sync_stand_at_the_place_of_their_anchor():
    found = of_positives(batch_of()[0])
    with without_host_sync():
        batch, _ = batch_of()
        every = of_positives(batch)
        mask = batch.is_positive
    for few, all_rows in zip(found, every, strict=True):
        assert torch.equal(few, all_rows[mask])
    assert (every[-1][~mask] == 0).all()


def test_sums_of_images_and_maps_of_anchors():
    batch, _ = batch_of((3, 0, 1))
    positives = batch.positive.sum(1)
    ones = torch.ones(int(positives.sum()))
    assert batch.sum_of_images(ones).tolist() == positives.tolist()
    of_anchors = batch.quality_of_anchors(IoUQuality())
    assert of_anchors.shape == batch.positive.shape
    assert torch.equal(of_anchors[batch.positive], batch.quality(IoUQuality()))
    assert (of_anchors[~batch.positive] == 0).all()


def test_of_an_anchors_pairs_the_one_in_the_map_has_its_quality():
    """Also where a pair is listed twice, and without a host sync."""
    batch, _ = batch_of((3, 2))
    matches = []
    for match, other in zip(batch.matches, (1, 0), strict=True):
        pairs = torch.stack([match.positive.nonzero()[:, 0], match.target_index[match.positive]], 1)
        extra = pairs[:2].clone()
        extra[:, 1] = other
        matches.append(replace(match, pairs=torch.cat([extra, pairs, pairs[:1]])))
    paired = MatchedBatch(batch.inputs, matches, batch.coder)
    expected = batch.quality_of_anchors(IoUQuality())
    assert torch.equal(paired.quality_of_anchors(IoUQuality()), expected)
