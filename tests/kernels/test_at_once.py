"""The way of an accelerator is the same loss, in few launches. Taken by a CPU that pretends."""

import math

import pytest
import torch
from registered import LOSSES, space_of
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import detloss
from detloss.kernels.at_once import LossAtOnce
from detloss.registry import CLASSIFICATION, options_of
from detloss.tensors import without_host_sync

CLASSES = 5
INDICES = torch.tensor([0, CLASSES - 1, 2, -1, CLASSES - 2, -1, 1])
WEIGHT = torch.tensor([1.0, 0, 2, 0.5, 1, 0, 3], dtype=torch.float64)
NAMES = [name for section, name in LOSSES if section == "classification"]


def has_gamma(name):
    """Whether its gradient depends on its value, which is that of PyTorch's `log_softmax` here."""
    return "gamma" in options_of(CLASSIFICATION[name])


def logits(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(INDICES), CLASSES, generator=generator, dtype=torch.float64) * 4
    return x.to(dtype).requires_grad_()


def build(name, **options):
    return detloss.build_part("classification", {"type": name, **options})


def value_and_gradient(loss, x, target, reduction="sum", **others):
    value = loss.compute(
        x, target, reduction=reduction, weight=others.pop("weight", None), **others
    )
    scale = torch.linspace(0.5, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
    (gradient,) = torch.autograd.grad((value * scale).sum(), x)
    return value.detach(), gradient


def assert_same(loss, x, target, **others):
    expected = value_and_gradient(loss, x, target, **others)
    before = x.detach().clone()
    with without_host_sync():
        got = value_and_gradient(loss, x, target, **others)
    assert torch.equal(x.detach(), before) or x.isnan().any()
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        assert_close(one, other)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "image"])
@pytest.mark.parametrize("weight", [None, WEIGHT, WEIGHT > 0], ids=["", "weighted", "masked"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_class_indices(name, dtype, weight, reduction):
    assert_same(build(name), logits(dtype), INDICES, reduction=reduction, weight=weight)


@pytest.mark.parametrize("weight", [None, WEIGHT[:, None] * torch.arange(5.0)], ids=["", "each"])
@pytest.mark.parametrize("name", [n for n in NAMES if not CLASSIFICATION[n].background_columns])
def test_background_and_a_weight_for_each_element(name, weight):
    index = INDICES.where(INDICES != 2, CLASSES)
    assert_same(build(name), logits(), index, weight=weight)
    assert_same(build(name), logits(), index, weight=weight, reduction="none")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_a_dense_target(name, dtype):
    target = logits().detach().flip(0).softmax(-1)
    assert_same(build(name), logits(dtype), target, weight=WEIGHT)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "options",
    [
        {"ignore_index": 2},
        {"class_weight": [1.0, 2.0, 0.0, 4.0, 5.0]},
        {"label_smoothing": 0.1},
        {"background_index": 0},
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"alpha": [0.0, 0.25, 0.5, 0.75, 1.0]},
        {"alpha": [0.0, 0.25, 0.5, 0.75, 1.0], "class_weight": [1.0, 2.0, 0.0, 4.0, 5.0]},
        {"gamma": 0.0},
        {"gamma": 1.5},
    ],
    ids=str,
)
def test_options(name, options):
    try:
        loss = build(name, **options)
    except detloss.ConfigError:
        pytest.skip("it has no such option")
    index = INDICES.where(INDICES != -1, 2) if options.get("ignore_index") == 2 else INDICES
    for reduction in ("none", "mean"):
        assert_same(loss, logits(), index, reduction=reduction)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("name", [n for n in NAMES if CLASSIFICATION[n].takes_quality])
def test_qualities(name, dtype):
    quality = torch.tensor([0.9, 0.2, 0.0, math.nan, 1.0, math.inf, 0.5])
    for weight in (None, WEIGHT):
        others = {"quality": quality, "weight": weight}
        assert_same(build(name), logits(dtype), INDICES, **others)
        assert_same(build(name), logits(dtype), INDICES, reduction="none", **others)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", NAMES)
def test_rows_left_out_may_hold_anything(name, poison):
    """Ignored, rows 3 and 5, and of weight 0, rows 1 and 5."""
    x, loss = logits(), build(name)
    kept = torch.tensor([0, 2, 4, 6])
    clean = value_and_gradient(loss, x, INDICES, weight=WEIGHT)
    with torch.no_grad():
        x[[1, 3, 5]] = poison
    with without_host_sync():
        value, gradient = value_and_gradient(loss, x, INDICES, weight=WEIGHT)
    assert (gradient[[1, 3, 5]] == 0).all()
    assert_close(value, clean[0])
    assert_close(gradient[kept], clean[1][kept])


@pytest.mark.parametrize("name", NAMES)
def test_large_logits(name):
    x = (logits(torch.float32).detach().sign() * 1e4).requires_grad_()
    assert_same(build(name), x, INDICES)


@pytest.mark.parametrize(
    "name", [n for n in NAMES if not (CLASSIFICATION[n].background_columns and has_gamma(n))]
)
def test_a_surely_right_answer_keeps_its_gradient(name):
    """1 - p is 2e-10, below what a float32 beside 1 can tell."""
    x = torch.tensor([[24.0, 0, 0, 0, 0]], requires_grad=True)
    wide = x.detach().double().requires_grad_()
    target = torch.tensor([0])
    with without_host_sync():
        _, gradient = value_and_gradient(build(name), x, target)
    _, expected = value_and_gradient(build(name), wide, target)
    assert_close(gradient[:, 0].double(), expected[:, 0], rtol=1e-4, atol=0)


@pytest.mark.parametrize(("kind", "name"), LOSSES, ids=lambda value: value)
def test_backward_twice_and_the_gradient_of_the_gradient(kind, name):
    if space_of(kind, name) != "classes":
        pytest.skip("test_dispatch holds the plain formula that it takes")
    loss, x = build(name), logits()

    def both():
        value = loss(x, INDICES)
        first, second = (torch.autograd.grad(value, x, retain_graph=True)[0] for _ in range(2))
        assert_close(first, second)
        (gradient,) = torch.autograd.grad(value, x, create_graph=True)
        if not gradient.requires_grad:  # of a loss that is piecewise linear
            return first, gradient
        (curvature,) = torch.autograd.grad(gradient.square().sum(), x, allow_unused=True)
        return first, curvature

    expected = both()
    with without_host_sync():
        got = both()
    for one, other in zip(got, expected, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_kept_without_a_gradient(name):
    loss, x = build(name), logits()
    with without_host_sync():
        expected = loss(x, INDICES)
        assert isinstance(expected.grad_fn, LossAtOnce._backward_cls)
        with torch.no_grad():
            assert torch.equal(loss(x, INDICES), expected.detach())
        assert torch.equal(loss(x.detach(), INDICES), expected.detach())
        expected.backward(retain_graph=True)
    assert expected.grad_fn.gradient_of is None


def test_a_loss_scale_lifts_float16_gradients_that_would_vanish():
    """p^2 l of a known background is 1e-9: below float16, but not times 65,536."""
    x = torch.full((2, CLASSES), -7.0, dtype=torch.float16, requires_grad=True)
    wide = x.detach().float().requires_grad_()
    target = torch.full((2,), CLASSES)
    with without_host_sync():
        for values in (x, wide):
            (build("sigmoid_focal")(values, target) * 65_536).backward()
    assert x.grad.min() > 0
    assert_close(x.grad, wide.grad.half())


class Launches(TorchDispatchMode):
    """The operators that are no views."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view and "empty" not in func.name():
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "most"),
    [("sigmoid_focal", 24), ("sigmoid_cross_entropy", 12), ("softmax_cross_entropy", 16)],
)
def test_a_plain_call_is_few_launches(name, most):
    x = torch.empty(100, 80, device="meta", requires_grad=True)
    target = torch.empty(100, dtype=torch.long, device="meta")
    with Launches() as launches:
        build(name, reduction="sum")(x, target).backward()
    assert len(launches.names) <= most, launches.names
