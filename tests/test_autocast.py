"""Under torch.autocast, whatever its dtype, nothing but the inputs says what is computed (R5, R6).

Half-precision inputs give what the same numbers give in float32 outside, their gradients in the
dtype of the inputs.
"""

import dataclasses

import pytest
import torch
from boxgen import random_boxes, rows_in
from matching import some_losses
from registered import LOSSES, space_of
from scenes import CLASSES, SIZE, build, gradients, grid_anchors, predictions_for, random_targets
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import detloss
from detloss.boxes import OVERLAPS, box_area, paired_overlap, pairwise_overlap
from detloss.registry import CODERS, MATCHERS

HALF_TYPES = [torch.float16, torch.bfloat16]

pytestmark = [
    pytest.mark.parametrize("autocast", HALF_TYPES, ids=lambda dtype: f"under {dtype}"),
    pytest.mark.parametrize("dtype", HALF_TYPES, ids=str),
]


class NoPlainCrossEntropy(TorchDispatchMode):
    """Refuses the operator that autocast refuses on a GPU: cross-entropy of probabilities."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        assert "binary_cross_entropy" not in operator.name(), "unsafe to autocast"
        return operator(*args, **(kwargs or {}))


@pytest.fixture
def autocasting(autocast):
    with torch.autocast("cpu", dtype=autocast), NoPlainCrossEntropy():
        yield


def outside(function, *inputs):
    """What `function` says outside autocast of the same numbers in float32."""
    with torch.autocast("cpu", enabled=False):
        return function(*(wide(values) for values in inputs))


def wide(values):
    if not values.is_floating_point():
        return values
    return values.detach().float().requires_grad_(values.requires_grad)


def large_boxes(count, *, seed, dtype):
    """Boxes of up to 10,000 px, whose areas are beyond float16."""
    return random_boxes(count, seed=seed, extent=1e4).to(dtype)


def example(space, dtype):
    if space != "classes":
        boxes = large_boxes(20, seed=1, dtype=dtype)
        pred, target = rows_in(space, boxes * 0.9 + 100, boxes)
        return pred.requires_grad_(), target
    logits = torch.randn(20, CLASSES) * 20
    return logits.to(dtype).requires_grad_(), torch.arange(20) % (CLASSES + 1) - 1


@pytest.mark.parametrize(("kind", "name"), [*LOSSES, ("classification", "zero_one")])
def test_losses(kind, name, dtype, autocasting):
    loss = detloss.build_part(kind, {"type": name})

    def value_and_gradient(pred, target):
        value = loss(pred, target)
        if not value.requires_grad:
            return value, None
        return value.detach(), *torch.autograd.grad(value, pred)

    pred, target = example(space_of(kind, name), dtype)
    value, gradient = value_and_gradient(pred, target)
    expected, expected_gradient = outside(value_and_gradient, pred, target)
    assert value.dtype == torch.float32
    assert_close(value, expected)
    if expected_gradient is not None:
        assert gradient.dtype == dtype
        assert_close(gradient, expected_gradient.to(dtype))


@pytest.mark.parametrize("kind", OVERLAPS)
def test_overlaps(kind, dtype, autocasting):
    boxes, others = (large_boxes(20, seed=seed, dtype=dtype) for seed in (1, 2))
    for measure in (paired_overlap, pairwise_overlap):
        expected = outside(lambda a, b, measure=measure: measure(a, b, kind=kind), boxes, others)
        assert_close(measure(boxes, others, kind=kind), expected)
    assert_close(box_area(boxes), outside(box_area, boxes))


@pytest.mark.parametrize("name", CODERS.names())
def test_coders(name, dtype, autocasting):
    coder = detloss.build_part("coder", {"type": name})
    boxes, anchors = (large_boxes(20, seed=seed, dtype=dtype) for seed in (1, 2))
    regression = torch.randn(20, coder.width).to(dtype)
    assert_close(coder.encode(boxes, anchors), outside(coder.encode, boxes, anchors))
    decoded = coder.decode(regression, anchors)
    assert_close(decoded, outside(coder.decode, regression, anchors))


@pytest.mark.parametrize("name", MATCHERS.names())
def test_matchers(name, dtype, autocasting):
    matcher = detloss.build_part("matcher", {"type": name})

    def match(anchors, truths, logits):
        return dataclasses.astuple(
            matcher(
                anchors,
                truths,
                gt_labels=torch.arange(6) % CLASSES,
                gt_ignore=torch.arange(6) == 4,
                level_sizes=[48, 16],
                class_logits=logits,
                pred_boxes=anchors,
                objectness=logits[:, 0],
                losses=some_losses,
            )
        )

    anchors = (grid_anchors() * 150).to(dtype)
    truths = (random_targets([6], seed=1)[0]["boxes"] * 150).to(dtype)
    inputs = (anchors, truths, torch.randn(len(anchors), CLASSES).to(dtype))
    found, expected = match(*inputs), outside(match, *inputs)
    assert found[1].any()
    assert_close(found, expected)


@pytest.mark.parametrize(("section", "name"), LOSSES)
def test_criteria(section, name, dtype, autocasting):
    sections = {"classification": {"type": "sigmoid_focal"}, "box": {"type": "giou"}}
    sections[section] = {"type": name}
    sampler = {"type": "hard_negative"}
    criterion = build(sampler=sampler, **sections)
    anchors, targets = grid_anchors(), random_targets([3, 0])

    def total_and_gradients(logits, deltas):
        predictions = {"class_logits": logits, "box_regression": deltas}
        size = (SIZE, SIZE)
        total = criterion(predictions, targets, anchors=anchors, image_size=size).total
        return total.detach(), *gradients(total, predictions)

    predictions = predictions_for(criterion, 2, len(anchors)).values()
    half = [values.detach().to(dtype).requires_grad_() for values in predictions]
    total, *found = total_and_gradients(*half)
    expected_total, *expected = outside(total_and_gradients, *half)
    assert total.dtype == torch.float32
    assert_close(total, expected_total)
    for got, want in zip(found, expected, strict=True):
        assert got.dtype == dtype
        assert_close(got, want.to(dtype))
