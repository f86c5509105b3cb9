"""A matched batch computes each thing once, with the gradient that it has."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from scenes import grid_anchors, random_predictions, random_targets
from torch.testing import assert_close

import detloss
from detloss.batch import MatchedBatch, computed_once, match_images
from detloss.boxes import grid_points
from detloss.coders import DeltaCoder
from detloss.inputs import Inputs
from detloss.matchers import Matcher, Matches
from detloss.qualities import GaussianQuality, IoUQuality
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
        @property
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


def test_the_rows_of_the_positives_are_taken_once_with_their_gradient():
    """Each taking makes a dense gradient of the size of the prediction."""
    batch, predictions = batch_of()
    with torch.no_grad():
        first = batch.regression("box_regression")
    assert batch.regression("box_regression") is first
    first.sum().backward()
    gradient = predictions["box_regression"].grad
    assert torch.equal(gradient[..., 0] != 0, batch.positive)


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
    """Not the best one, and also where a pair is listed twice."""
    batch, _ = batch_of((3, 2))
    mapped, paired = [], []
    for match, other in zip(batch.matches, (1, 0), strict=True):
        # the map names a ground truth that fits worse than the other one of the anchor's pairs
        index = torch.where(match.positive, other, 0)
        anchors = match.positive.nonzero()[:, 0]
        better, named = (
            torch.stack([anchors, of[anchors]], 1) for of in (match.target_index, index)
        )
        mapped.append(replace(match, target_index=index))
        paired.append(replace(mapped[-1], pairs=torch.cat([better, named, named[:1]])))
    expected, found = (
        MatchedBatch(batch.inputs, matches, batch.coder).quality_of_anchors(IoUQuality())
        for matches in (mapped, paired)
    )
    assert torch.equal(found, expected)
    assert (found < batch.quality_of_anchors(IoUQuality())).any()


def test_rows_that_are_no_pairs_are_background_without_a_weight():
    """They name any anchor and any ground truth, such as one that their image does not have."""
    batch, _ = batch_of((3, 2))
    listed, flagged = [], []
    for match in batch.matches:
        anchors = match.positive.nonzero()[:, 0]
        pairs = torch.stack([anchors, match.target_index[anchors]], 1)
        listed.append(replace(match, pairs=pairs))
        rows = torch.cat([torch.tensor([[int(anchors[0]), 7]]), pairs])
        is_pair = torch.arange(len(rows)) > 0
        flagged.append(replace(match, pairs=rows, is_pair=is_pair))
    expected, found, mixed = (
        MatchedBatch(batch.inputs, matches, batch.coder)
        for matches in (listed, flagged, [listed[0], flagged[1]])
    )
    assert expected.is_positive is None
    for some in (found, mixed):
        assert (some.truth[~some.is_positive] == 5).all()
        for few, rows in zip(of_positives(expected), of_positives(some), strict=True):
            assert torch.equal(rows[some.is_positive], few)
        assert (some.quality(IoUQuality())[~some.is_positive] == 0).all()
        of_anchors = (one.quality_of_anchors(IoUQuality()) for one in (expected, some))
        assert torch.equal(*of_anchors)


class Strided(DeltaCoder):
    """Deltas of a box moved by the stride of its anchor."""

    strides = (8.0, 16.0)

    def encode(self, boxes, anchors, strides):
        return super().encode(boxes - strides[..., None], anchors)

    def decode(self, regression, anchors, strides):
        return super().decode(regression, anchors) + strides[..., None]


def test_a_coder_gets_the_stride_of_each_anchor():
    batch, _ = batch_of((3, 2))
    sizes = [40, 24]
    with_levels = replace(batch.inputs, level_sizes=sizes)
    strided = MatchedBatch(with_levels, batch.matches, Strided())
    strides = torch.tensor([8.0, 16.0]).repeat_interleave(torch.tensor(sizes)).repeat(2)
    moved = strided.decoded("box_regression") - batch.decoded("box_regression")
    assert_close(moved, strides[batch.index][:, None].expand_as(moved))
    decoded = DeltaCoder().decode(strided.encoded, strided.anchors) + strides[batch.index][:, None]
    assert_close(decoded, strided.truth_boxes)
    with pytest.raises(ValueError, match="level_sizes must be given where a part asks for levels"):
        MatchedBatch(batch.inputs, batch.matches, Strided()).decoded("box_regression")


class Asking(Matcher):
    """Keeps the boxes that it is given."""

    needs = frozenset({"pred_boxes"})

    def forward(self, anchors, gt_boxes, *, pred_boxes, **others):
        self.given.append(pred_boxes)


def test_a_matcher_gets_boxes_decoded_with_the_stride_of_each_anchor():
    batch, predictions = batch_of((3, 2))
    matcher = Asking()
    matcher.given = []
    match_images(matcher, replace(batch.inputs, level_sizes=[40, 24]), Strided())
    expected = DeltaCoder().decode(predictions["box_regression"], ANCHORS.expand(2, -1, -1))
    expected[:, :40] += 8
    expected[:, 40:] += 16
    assert_close(torch.stack(matcher.given), expected)


def heat_of(targets, classes, *, anchors=None, without_sync=False):
    anchors = ANCHORS if anchors is None else anchors
    count = len(targets)
    no = torch.zeros(len(anchors), dtype=torch.bool)
    matches = [Matches(no.long(), no, no)] * count
    inputs = Inputs({}, targets, [anchors] * count)
    with without_host_sync() if without_sync else nullcontext():
        return MatchedBatch(inputs, matches, DeltaCoder()).heat(GaussianQuality(), classes)


@pytest.mark.parametrize("without_sync", [False, True])
def test_a_heat_is_the_largest_quality_with_an_object_of_the_class(without_sync):
    """Of images with several objects, one and none; an ignore region has any label."""
    cells, _ = grid_points([(32, 32)], [2])
    targets = random_targets([6, 0, 1], seed=1)
    targets[0] |= {"labels": torch.tensor([0, 2, 0, 99, 0, 2]), "ignore": torch.arange(6) == 3}
    heat = heat_of(targets, 4, anchors=cells, without_sync=without_sync)
    expected = torch.zeros(3, len(cells), 4)
    for image, target in enumerate(targets):
        ignore = target.get("ignore", torch.zeros_like(target["labels"]))
        for box, label, region in zip(target["boxes"], target["labels"], ignore, strict=True):
            if not region:
                positives = SimpleNamespace(anchors=cells, truth_boxes=box.expand_as(cells))
                of_class = expected[image, :, label]
                torch.maximum(of_class, GaussianQuality()(positives), out=of_class)
    assert_close(heat, expected)
    assert (heat == 1).sum().item() == 6
    assert (heat > 0).sum() > 20
    of_any = heat_of(targets, None, anchors=cells, without_sync=without_sync)
    assert torch.equal(of_any, heat.amax(2, keepdim=True))


@pytest.mark.parametrize("without_sync", [False, True])
def test_without_objects_or_anchors_there_is_no_heat(without_sync):
    targets = random_targets([0, 0])
    assert (heat_of(targets, 3, without_sync=without_sync) == 0).all()
    anchors = torch.zeros(0, 4)
    heat = heat_of(random_targets([2, 0]), 3, anchors=anchors, without_sync=without_sync)
    assert heat.shape == (2, 0, 3)


def test_a_heat_is_in_the_unit_of_wide_boxes_and_asked_once():
    batch, _ = batch_of((2, 1))
    first, second = (batch.heat(GaussianQuality(), 3) for _ in range(2))
    assert first is second
    assert batch.heat(GaussianQuality(min_overlap=0.5), 3) is not first
    targets = [target | {"boxes": target["boxes"].half()} for target in batch.inputs.targets]
    assert heat_of(targets, 3).dtype == torch.float32


def test_a_label_that_is_no_class_has_no_heat():
    targets = [{"boxes": ANCHORS[:1], "labels": torch.tensor([3])}]
    with pytest.raises(ValueError, match=r"targets\[0\]\['labels'\]\[0\] must be in 0..2, got 3"):
        heat_of(targets, 3)
