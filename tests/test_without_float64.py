"""A device without float64, such as Apple's MPS: nothing asks for one there.

Meta tensors stand for those of such a device: they have no values, so nothing reads one either.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from boxgen import rows_in
from registered import space_of
from scenes import CLASSES, SIZE, build, call_of, grid_anchors, predictions_for, random_targets
from term_rows import DIVIDING
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from two_ranks import criterion_config, synced

import detloss
from detloss import tensors
from detloss.normalizers import base
from detloss.parts import needed_predictions
from detloss.registry import CLASSIFICATION, MATCHERS, QUALITIES, REGRESSION, SAMPLERS
from detloss.shipped import shipped_configs

ANCHORS = grid_anchors()
LEVELS = [48, 16]
DEVICE = "meta"
HAS_FLOAT64 = tensors.has_float64


class NoFloat64(TorchDispatchMode):
    """Raises as such a device does, where a float64 tensor comes up on it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == DEVICE:
                assert tensor.dtype != torch.float64, f"{function} gives float64"
        return found


@pytest.fixture(autouse=True)
def device(monkeypatch):
    """What the package takes for a device without float64."""
    for module in list(sys.modules.values()):
        if getattr(module, "has_float64", None) is HAS_FLOAT64:
            monkeypatch.setattr(module, "has_float64", lambda device: device.type != DEVICE)


@contextmanager
def without_float64() -> Iterator[None]:
    """Within, that device has no float64."""
    with FakeTensorMode(allow_non_fake_inputs=True), NoFloat64():
        yield


def moved(values):
    """`values` on the device, whatever holds them."""
    return tree_map_only(torch.Tensor, lambda tensor: tensor.detach().to(DEVICE), values)


def test_mps_has_none():
    assert not HAS_FLOAT64(torch.device("mps"))
    assert HAS_FLOAT64(torch.device("cpu"))
    assert HAS_FLOAT64(torch.device("cuda"))


def test_it_is_told_where_something_asks_for_float64():
    with without_float64():
        here = moved(torch.ones(2))
        with pytest.raises(AssertionError, match="gives float64"):
            here.double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("section", "name"),
    [
        (section, name)
        for section, registry in {"classification": CLASSIFICATION, "box": REGRESSION}.items()
        for name in registry.names()
    ],
)
def test_a_loss_and_its_gradient(section, name, dtype):
    loss = detloss.build_part(section, {"type": name})
    space = space_of(section, name)
    with without_float64():
        if space == "classes":
            pred, target = torch.zeros(6, CLASSES, dtype=dtype), torch.arange(6) % CLASSES
        else:
            pred, target = (each.to(dtype) for each in rows_in(space, ANCHORS, ANCHORS + 1))
        pred, target = moved((pred, target))
        pred.requires_grad_()
        total = loss.to(DEVICE)(pred, target, weight=torch.ones(len(pred), device=DEVICE))
        assert total.device.type == DEVICE
        if total.requires_grad:  # a metric has none
            total.backward()
            assert pred.grad.dtype == dtype


MATCHING = {name: {"matcher": {"type": name}} for name in MATCHERS.names()}
SAMPLING = {name: {"sampler": {"type": name}} for name in SAMPLERS.names()}
DIVIDED = {name: criterion_config(name) for name in DIVIDING}
SCORING = next(name for name in MATCHERS.names() if MATCHERS[name].scores)
LABELS = {
    f"label {name}": {
        "matcher": {"type": SCORING if "score" in QUALITIES[name].needs else "max_iou"},
        "classification": {"type": "sigmoid_cross_entropy", "label": name},
        "box": {"type": "giou", "weigh_by": name},
    }
    for name in QUALITIES.names()
}
CRITERIA = MATCHING | SAMPLING | DIVIDED | LABELS


def call(criterion, sizes=LEVELS):
    """Value and gradient on the device; the first image has weights and the second no object."""
    predictions = predictions_for(criterion, 2, len(ANCHORS))
    for name in needed_predictions(criterion.terms.values(), criterion.matcher):
        predictions.setdefault(name, torch.zeros(2, len(ANCHORS), requires_grad=True))
    targets = random_targets([2, 0])
    targets[0]["weights"] = torch.ones(2)
    with without_float64():
        predictions = moved(predictions)
        for prediction in predictions.values():
            prediction.requires_grad_()
        anchors, targets = moved((ANCHORS, targets))
        output = criterion.to(DEVICE)(
            predictions, targets, anchors=anchors, level_sizes=sizes, image_size=(SIZE, SIZE)
        )
        output.total.backward()
        assert output.total.device.type == DEVICE
        for prediction in predictions.values():
            assert prediction.grad is None or prediction.grad.dtype == torch.float32
        return output


@pytest.mark.parametrize("name", CRITERIA)
def test_a_criterion_and_its_gradient(name):
    call(build(**CRITERIA[name]))


@pytest.mark.parametrize("name", shipped_configs())
def test_a_config_that_comes_with_the_package(name):
    criterion = detloss.load_config(name)
    layers = getattr(criterion, "layers", {}).values()
    for each in [layer.criterion for layer in layers] or [criterion]:
        call(each, call_of(each)["level_sizes"])


@pytest.mark.parametrize("name", DIVIDING)
def test_what_ranks_count_travels_in_float64_through_the_cpu(name, monkeypatch):
    """Numbers above 2^24 add up exactly, and from MPS there is no other way to other processes."""
    sent = []
    monkeypatch.setattr(base, "_world_size", lambda: 2)
    monkeypatch.setattr(base.distributed, "all_reduce", sent.append)
    output = call(build(**synced(criterion_config(name), True)))
    assert all(tensor.device.type == "cpu" for tensor in sent)
    assert all(tensor.dtype == torch.float64 for tensor in sent)
    assert len(sent) == (name != "constant")
    for divisor in output.divisors.values():
        assert divisor.device.type == DEVICE
