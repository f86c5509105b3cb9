"""Padded targets: the same loss, and two graphs for any number of objects."""

import itertools

import pytest
import torch
from scenes import build, gradients, grid_anchors, random_predictions, random_targets
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close

from detloss.boxes import pad_targets
from detloss.boxes.padding import padded
from detloss.registry import MATCHERS, NORMALIZERS

ANCHORS = grid_anchors()
COUNTS = [list(counts) for counts in itertools.product([0, 1, 2], repeat=3)]


@pytest.mark.parametrize("normalizer", ["positives", "ground_truths", "per_image"])
@pytest.mark.parametrize("counts", [[0, 1, 5], [0, 0, 0], [2, 2, 2]])
def test_the_loss_is_that_of_the_targets(counts, normalizer):
    assert normalizer in NORMALIZERS
    criterion = build(normalizer={"type": normalizer})
    predictions, targets = random_predictions(3, len(ANCHORS)), random_targets(counts)
    targets[1]["weights"] = torch.rand(counts[1]) + 0.5
    targets[2]["ignore"] = torch.arange(counts[2]) == 1
    plain = criterion(predictions, targets, anchors=ANCHORS)
    found = criterion(predictions, pad_targets(targets), anchors=ANCHORS)
    assert torch.equal(found.total, plain.total)
    assert_close(gradients(found.total, predictions), gradients(plain.total, predictions))


@pytest.mark.parametrize("name", MATCHERS.names())
def test_no_matcher_assigns_an_anchor_to_padding(name):
    criterion = build(matcher={"type": name})
    if criterion.matcher.needs - {"level_sizes", "gt_labels"}:
        pytest.skip("looks at predictions: test_base.py of the matchers has its ignore regions")
    targets = random_targets([2, 0])
    for one, other in zip(
        criterion.match(targets, anchors=ANCHORS, level_sizes=[64]),
        criterion.match(pad_targets(targets, 9), anchors=ANCHORS, level_sizes=[64]),
        strict=True,
    ):
        assert torch.equal(one.positive, other.positive)
        assert torch.equal(one.ignored, other.ignored)
        assert torch.equal(one.target_index, other.target_index)


def compiled(criterion, counter):
    def loss(predictions, targets):
        return criterion(predictions, targets, anchors=ANCHORS).total

    torch.compiler.reset()
    return torch.compile(loss, fullgraph=True, backend=counter)


def test_two_graphs_for_any_number_of_objects():
    """Of targets that are not padded there are 27: sizes 0 and 1 are compiled in."""
    criterion, counter = build(), CompileCounter()
    loss, predictions = compiled(criterion, counter), random_predictions(3, len(ANCHORS))
    for counts in [*COUNTS, [7, 0, 3], [4, 4, 4]]:
        targets = random_targets(counts)
        expected = criterion(predictions, targets, anchors=ANCHORS).total
        assert_close(loss(predictions, pad_targets(targets)), expected)
    assert counter.frame_count <= 2


def test_two_graphs_for_one_image_after_another():
    criterion, counter = build(), CompileCounter()
    loss, predictions = compiled(criterion, counter), random_predictions(1, len(ANCHORS))
    for count in [1, 1, 0, 3, 1, 8, 2]:
        loss(predictions, pad_targets(random_targets([count])))
    assert counter.frame_count <= 2


def test_one_graph_for_one_size():
    criterion, counter = build(), CompileCounter()
    loss, predictions = compiled(criterion, counter), random_predictions(3, len(ANCHORS))
    for counts in COUNTS:
        loss(predictions, pad_targets(random_targets(counts), 5))
    assert counter.frame_count == 1


def test_sizes_marked_dynamic_are_one_graph():
    criterion, counter = build(), CompileCounter()
    loss, predictions = compiled(criterion, counter), random_predictions(3, len(ANCHORS))
    for counts in [[2, 0, 1], [3, 1, 0], [0, 9, 0]]:
        targets = pad_targets(random_targets(counts))
        for target in targets:
            for values in target.values():
                torch._dynamo.mark_dynamic(values, 0)
        loss(predictions, targets)
    assert counter.frame_count == 1


@pytest.mark.parametrize("size", [1, 2])
def test_rejects_a_size_that_is_too_small(size):
    with pytest.raises(ValueError, match=f"size must be at least 3, got {size}"):
        pad_targets(random_targets([3, 1]), size)


def test_rejects_boxes_of_another_shape():
    with pytest.raises(ValueError, match=r"targets\[0\]\['boxes'\] must have shape \(M, 4\)"):
        pad_targets([{"boxes": torch.zeros(4)}])


@pytest.mark.parametrize("counts", [[2], [3, 0, 1], [0, 0]])
def test_padded_tensors_stand_one_above_the_other(counts):
    values = [torch.arange(4 * count).view(count, 4) + 100 * i for i, count in enumerate(counts)]
    together = padded(values, -1)
    assert together.shape == (len(counts), max(counts), 4)
    for value, rows in zip(values, together, strict=True):
        assert torch.equal(rows[: len(value)], value)
        assert (rows[len(value) :] == -1).all()
