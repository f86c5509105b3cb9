"""On an accelerator nothing waits for a value: the same results, from another way through."""

import pytest
import torch
from boxgen import random_boxes, rows_in
from registered import LOSSES, space_of
from scenes import grid_anchors, random_predictions, random_targets
from torch.testing import assert_close

import detloss
from detloss.tensors import without_host_sync

CRITERIA = [
    ("sigmoid_focal", "l1", "positives", "all"),
    ("softmax_cross_entropy", "ciou", "per_image", "hard_negative"),
    ("hinge", "smooth_l1", "supplied", "all"),
]


def example(space, device="cpu"):
    """Boxes that touch, tie and are flat; labels of every kind; weights with a zero."""
    weight = torch.tensor([1.0, 0, 2, 0.5, 1, 3]).to(device)
    if space != "classes":
        target = random_boxes(6, seed=1, dtype=torch.float32)
        pred = target + torch.tensor([3.0, 0, -2, 1])
        pred[4] = target[4]
        pred[5, 2] = pred[5, 0]
        pred, target = rows_in(space, pred, target)
        return pred.to(device).requires_grad_(), target.to(device), weight
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, generator=generator) * 4
    return logits.to(device).requires_grad_(), torch.arange(6).to(device) - 1, weight


def value_and_gradient(loss, pred, target, weight, reduction):
    value = loss.compute(pred, target, weight=weight, reduction=reduction)
    (gradient,) = torch.autograd.grad(value.sum() * 3, pred)
    return value.detach(), gradient


def build(names):
    classification, box, normalizer, sampler = names
    return detloss.build(
        {
            "matcher": {"type": "max_iou"},
            "coder": {"type": "delta", "weights": [10, 10, 5, 5]},
            "classification": {"type": classification},
            "box": {"type": box},
            "normalizer": {"type": normalizer},
            "sampler": {"type": sampler},
        }
    )


def scene(criterion, device="cpu"):
    """Predictions, targets and the rest of a criterion's call; an image without an object too."""
    anchors = grid_anchors()
    classes = 4 + criterion.terms["classification"].loss.background_columns
    predictions = random_predictions(3, len(anchors), classes=classes)
    targets = random_targets([3, 0, 5])
    targets[2]["ignore"] = torch.tensor([False, True, False, False, True])
    predictions = {
        key: value.detach().to(device).requires_grad_() for key, value in predictions.items()
    }
    targets = [{key: value.to(device) for key, value in target.items()} for target in targets]
    return predictions, targets, {"anchors": anchors.to(device), "normalizer": 7.0}


def run(criterion, device="cpu"):
    predictions, targets, others = scene(criterion, device)
    if criterion.normalizer.type_name != "supplied":
        del others["normalizer"]
    output = criterion(predictions, targets, **others)
    gradients = torch.autograd.grad(output.total, list(predictions.values()))
    return output.total.detach(), *gradients, *(m.target_index for m in output.matches)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize(("kind", "name"), LOSSES, ids=lambda value: value)
def test_a_loss_without_looking_is_the_same(kind, name, reduction):
    loss = detloss.build_part(kind, {"type": name})
    expected = value_and_gradient(loss, *example(space_of(kind, name)), reduction)
    with without_host_sync():
        got = value_and_gradient(loss, *example(space_of(kind, name)), reduction)
    for one, other in zip(got, expected, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("alpha", [None, 0.0, 0.25, 1.0, [0.1, 0.2, 0.3, 0.4, 0.5]], ids=str)
def test_focal_without_looking_is_the_same(alpha):
    options = {"alpha": alpha, "class_weight": [1.0, 2.0, 3.0, 4.0, 5.0]}
    loss = detloss.build_part("classification", {"type": "sigmoid_focal", **options})
    expected = value_and_gradient(loss, *example("classes"), "mean")
    with without_host_sync():
        got = value_and_gradient(loss, *example("classes"), "mean")
    for one, other in zip(got, expected, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("names", CRITERIA, ids="-".join)
def test_a_criterion_without_looking_is_the_same(names):
    expected = run(build(names))
    with without_host_sync():
        got = run(build(names))
    for one, other in zip(got, expected, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize(("kind", "name"), LOSSES, ids=lambda value: value)
def test_a_loss_asks_for_no_value(kind, name):
    """A meta tensor has none: whoever asks gets an error."""
    loss = detloss.build_part(kind, {"type": name})
    for reduction in ("none", "sum", "mean"):
        value, gradient = value_and_gradient(
            loss, *example(space_of(kind, name), "meta"), reduction
        )
        assert value.device.type == gradient.device.type == "meta"


@pytest.mark.parametrize("names", CRITERIA, ids="-".join)
def test_a_criterion_asks_for_no_value(names):
    assert all(result.device.type == "meta" for result in run(build(names), "meta"))


@pytest.mark.gpu
@pytest.mark.parametrize("names", CRITERIA, ids="-".join)
def test_a_criterion_on_a_gpu_waits_for_nothing(names):
    criterion = build(names)
    expected = run(criterion)
    predictions, targets, others = scene(criterion, "cuda")
    if names[2] != "supplied":
        del others["normalizer"]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        output = criterion(predictions, targets, **others)
        gradients = torch.autograd.grad(output.total, list(predictions.values()))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    got = output.total.detach(), *gradients, *(m.target_index for m in output.matches)
    for one, other in zip(got, expected, strict=True):
        assert_close(one.cpu(), other)


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "name"), LOSSES, ids=lambda value: value)
def test_a_loss_on_a_gpu_waits_for_nothing(kind, name):
    loss = detloss.build_part(kind, {"type": name})
    for reduction in ("none", "sum", "mean"):
        expected = value_and_gradient(loss, *example(space_of(kind, name)), reduction)
        arguments = example(space_of(kind, name), "cuda")
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            got = value_and_gradient(loss, *arguments, reduction)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        for one, other in zip(got, expected, strict=True):
            assert_close(one.cpu(), other)
