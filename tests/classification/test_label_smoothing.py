"""Label smoothing, of every registered loss that has it."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn.functional import one_hot
from torch.testing import assert_close

import detloss
from detloss.kernels import blocks, plain_formulas
from detloss.registry import CLASSIFICATION, options_of
from detloss.tensors import without_host_sync

CLASSES = 4
SMOOTHED = [n for n in CLASSIFICATION.names() if "label_smoothing" in options_of(CLASSIFICATION[n])]
TARGETS = ["index", "soft"]


def build(name, label_smoothing=0.2, **options):
    return detloss.build_part(
        "classification", {"type": name, "label_smoothing": label_smoothing, **options}
    )


def answers(loss):
    """Over how many answers a label is spread: yes and no, or the columns of a softmax."""
    return CLASSES if loss.background_columns else 2


def example(loss, target, *, dtype=torch.float64):
    """Logits (7, 4) that require a gradient, and labels of every class and of the background."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, CLASSES, generator=generator, dtype=torch.float64) * 3
    index = torch.arange(7) % (CLASSES + 1 - loss.background_columns)
    soft = torch.rand(7, CLASSES, generator=generator, dtype=torch.float64)
    soft = soft / soft.sum(-1, keepdim=True)
    hard = one_hot(index, CLASSES + 1)[:, :CLASSES].double()
    chosen = {"index": index, "hard": hard, "soft": soft}[target]
    return logits.to(dtype).requires_grad_(), chosen


def value_and_gradient(loss, logits, target, weight=None, reduction="none"):
    value = loss.compute(logits, target, weight=weight, reduction=reduction)
    scale = torch.linspace(0.5, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
    (gradient,) = torch.autograd.grad((value * scale).sum(), logits)
    return value.detach(), gradient


@pytest.mark.parametrize("name", SMOOTHED)
@pytest.mark.parametrize("label_smoothing", [0.1, 1.0])
@pytest.mark.parametrize("target", ["index", "hard", "soft"])
def test_is_the_loss_of_smoothed_labels(name, label_smoothing, target):
    loss = build(name, label_smoothing, class_weight=[1.0, 2.0, 3.0, 4.0])
    logits, labels = example(loss, target)
    share = example(loss, "hard" if target == "index" else target)[1]
    share = share * (1 - label_smoothing) + label_smoothing / answers(loss)
    plain = build(name, 0.0, class_weight=[1.0, 2.0, 3.0, 4.0])
    found = value_and_gradient(loss, logits, labels)
    assert_close(found, value_and_gradient(plain, logits, share), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", SMOOTHED)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_blocks_give_what_autograd_gives(name, target, dtype, reduction, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 2 * CLASSES)
    loss = build(name)
    arguments = (loss, *example(loss, target, dtype=dtype), torch.arange(7) * 0.5, reduction)
    found = value_and_gradient(*arguments)
    with plain_formulas():
        expected = value_and_gradient(*arguments)
    assert_close(found, expected)


@pytest.mark.parametrize("name", SMOOTHED)
@pytest.mark.parametrize("target", TARGETS)
def test_gradient_is_that_of_the_value(name, target):
    loss = build(name)
    logits, labels = example(loss, target)
    assert gradcheck(lambda x: loss.compute(x, labels, weight=None, reduction="none"), logits)


@pytest.mark.parametrize("name", SMOOTHED)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_ignored_rows_are_exactly_zero_and_leave_the_mean(name, weighted, poison):
    loss = build(name)
    logits, index = example(loss, "index")
    weight = torch.linspace(1, 2, 7) if weighted else None
    counted = torch.arange(7) % 3 != 1
    kept = None if weight is None else weight[counted]
    expected = value_and_gradient(loss, logits[counted], index[counted], kept, "mean")
    with torch.no_grad():
        logits[~counted] = poison
    index = torch.where(counted, index, -1)
    value, gradient = value_and_gradient(loss, logits, index, weight)
    assert (value[~counted] == 0).all()
    assert (gradient[~counted] == 0).all()
    value, gradient = value_and_gradient(loss, logits, index, weight, "mean")
    assert_close((value, gradient[counted]), expected)


@pytest.mark.parametrize("name", [n for n in SMOOTHED if not CLASSIFICATION[n].background_columns])
def test_weights_of_elements_silence_beside_ignored_rows(name):
    loss = build(name)
    logits, index = example(loss, "index")
    index[2] = -1
    weight = torch.rand(7, CLASSES, generator=torch.Generator().manual_seed(1)).double()
    weight[3, 1] = 0
    expected = loss.compute(logits, index, weight=None, reduction="none") * weight
    with torch.no_grad():
        logits[2] = logits[3, 1] = math.nan
    value, gradient = value_and_gradient(loss, logits, index, weight)
    assert_close(value, expected.detach())
    silent = torch.zeros(7, CLASSES, dtype=torch.bool)
    silent[2] = silent[3, 1] = True
    assert torch.equal(gradient == 0, silent)


@pytest.mark.parametrize("name", SMOOTHED)
def test_class_indices_become_dense_in_a_block_only(name):
    loss = build(name)
    value = loss(*example(loss, "index"))  # while it lives, so do the saved tensors
    _, *kept = value.grad_fn.saved_tensors
    assert [saved.shape for saved in kept] == [(7,), (7,)], "weight and target"


@pytest.mark.parametrize("name", SMOOTHED)
def test_compiles_in_one_graph(name):
    torch._dynamo.reset()
    loss = build(name)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=True)
    for target in ("index", "soft"):
        logits, labels = example(loss, target)
        found, expected = (one(logits, labels) for one in (compiled, loss))
        assert_close(found, expected)
        assert_close(*(torch.autograd.grad(value, logits)[0] for value in (found, expected)))


@pytest.mark.parametrize("name", SMOOTHED)
@pytest.mark.parametrize("target", TARGETS)
def test_without_looking_it_is_the_same(name, target):
    loss = build(name)
    expected = value_and_gradient(loss, *example(loss, target))
    with without_host_sync():
        assert_close(value_and_gradient(loss, *example(loss, target)), expected)


@pytest.mark.parametrize("name", SMOOTHED)
@pytest.mark.parametrize("target", TARGETS)
def test_asks_for_no_value(name, target):
    """A meta tensor has none: whoever asks gets an error."""
    loss = build(name)
    logits, labels = example(loss, target)
    logits = logits.detach().to("meta").requires_grad_()
    loss(logits, labels.to("meta")).backward()
    assert logits.grad.shape == logits.shape


@pytest.mark.parametrize("name", SMOOTHED)
def test_each_row_by_vmap(name):
    loss = build(name)
    logits, index = example(loss, "index")
    rows = torch.func.vmap(lambda x, label: loss.function(x, label, label_smoothing=0.2))
    expected = loss.compute(logits, index, weight=None, reduction="none")
    assert_close(rows(logits, index), expected)


@pytest.mark.parametrize("name", SMOOTHED)
@pytest.mark.parametrize("label_smoothing", [-0.1, 1.5])
def test_rejects_what_is_not_in_0_to_1(name, label_smoothing):
    loss = build(name)
    logits, labels = example(loss, "index")
    message = rf"label_smoothing must be in \[0, 1\], got {label_smoothing}"
    with pytest.raises(ValueError, match=message):
        loss.function(logits, labels, label_smoothing=label_smoothing)
    with pytest.raises(
        detloss.ConfigError, match=r"classification.label_smoothing: expected a val"
    ):
        build(name, label_smoothing)
