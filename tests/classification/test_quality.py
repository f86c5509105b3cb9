"""A quality beside class indices, for every loss that takes one: beyond test_contract.py."""

import math
from typing import get_type_hints

import fuzz
import pytest
import torch
from constants import holding_constants
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import one_hot
from torch.testing import assert_close

import detloss
from detloss.kernels import blocks, plain_formulas
from detloss.registry import CLASSIFICATION, options_of

CLASSES = 4
TAKING = [n for n in CLASSIFICATION.names() if CLASSIFICATION[n].takes_quality]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
INDEX = torch.tensor([0, 3, CLASSES, -1, 2, 1, CLASSES, 3, 0])
QUALITY = torch.tensor([0.9, 0.2, math.nan, math.nan, 0.0, 1.0, math.inf, 0.5, 0.75])
WITHOUT_NAN = QUALITY.nan_to_num(0.3, posinf=0.3)


def build(name, **options):
    return detloss.build_part("classification", {"type": name, **options})


def example(dtype=torch.float64):
    """Logits (9, 4) that require a gradient."""
    logits = torch.randn(9, CLASSES, generator=torch.Generator().manual_seed(0)) * 3
    return logits.to(dtype).requires_grad_()


def value_and_gradient(loss, logits, target=INDEX, quality=QUALITY, weight=None, reduction="none"):
    value = loss.compute(logits, target, quality=quality, weight=weight, reduction=reduction)
    scale = torch.linspace(0.5, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
    (gradient,) = torch.autograd.grad((value * scale).sum(), logits)
    return value.detach(), gradient


def dense(loss, quality=WITHOUT_NAN):
    """The labels (9, 4) of all classes, as the loss wants a dense target."""
    labels = one_hot(INDEX % (CLASSES + 1), CLASSES + 1)[:, :CLASSES] * quality.double()[:, None]
    logits, no = torch.full((1, CLASSES), 0.5), torch.tensor([CLASSES])
    of_no = loss.compute(logits, no, weight=None, reduction="none")
    of_zeros = loss.compute(logits, torch.zeros(1, CLASSES), weight=None, reduction="none")
    return labels if of_no.allclose(of_zeros) else 2 * labels - 1  # or -1 is what says no


@pytest.mark.parametrize("name", TAKING)
class TestEveryLossThatTakesOne:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    def test_a_quality_of_one_changes_nothing(self, name, dtype):
        loss, logits = build(name), example(dtype)
        found = value_and_gradient(loss, logits, quality=torch.ones(9))
        assert_close(found, value_and_gradient(loss, logits, quality=None))

    def test_a_quality_of_zero_is_what_small_ones_lead_to(self, name):
        """A positive is one by its class: no step makes it a background where the box is bad."""
        loss, logits = build(name), example()
        found = value_and_gradient(loss, logits, quality=torch.zeros(9))
        small = torch.full((9,), 1e-12, dtype=torch.float64)
        assert_close(found, value_and_gradient(loss, logits, quality=small), rtol=0, atol=1e-9)

    @pytest.mark.parametrize("weighted", [False, True], ids=["", "class_weight"])
    def test_is_the_dense_target_that_holds_the_qualities(self, name, weighted):
        options = {"class_weight": [1.0, 2.0, 0.0, 4.0]} if weighted else {}
        if weighted and "alpha" in get_type_hints(CLASSIFICATION[name]):  # one for each class
            options["alpha"] = [0.1, 0.4, 0.7, 1.0]
        loss, logits = build(name, **options), example()
        quality = QUALITY.where(QUALITY != 0, 0.6)  # a dense 0 may say that there is no positive
        counts = (INDEX != -1).double()
        expected = value_and_gradient(
            loss, logits, dense(loss, WITHOUT_NAN.where(QUALITY != 0, 0.6)), None, counts
        )
        found = value_and_gradient(loss, logits, quality=quality)
        assert_close(found, expected, rtol=1e-6, atol=1e-12)  # of float32 qualities

    def test_that_of_a_row_without_a_class_is_never_read(self, name):
        loss, logits = build(name), example()
        for reduction in ("none", "sum", "mean"):
            found = value_and_gradient(loss, logits, reduction=reduction)
            clean = value_and_gradient(loss, logits, quality=WITHOUT_NAN, reduction=reduction)
            assert torch.equal(found[0], clean[0])
            assert torch.equal(found[1], clean[1])
            with plain_formulas():
                plain = value_and_gradient(loss, logits, reduction=reduction)
            assert_close(plain, clean)

    def test_that_of_an_ignored_class_is_never_read(self, name):
        loss, logits = build(name, ignore_index=2), example()
        index = INDEX.where(INDEX != -1, 2)
        quality = QUALITY.where(index != 2, math.nan)
        value, gradient = value_and_gradient(loss, logits, index, quality)
        assert (value[index == 2] == 0).all()
        assert (gradient[index == 2] == 0).all()
        assert value.isfinite().all()

    def test_carries_no_gradient(self, name):
        loss, logits = build(name), example()
        quality = QUALITY.double().requires_grad_()
        expected = value_and_gradient(loss, logits, quality=quality.detach())
        assert_close(value_and_gradient(loss, logits, quality=quality), expected)
        loss(logits, INDEX, quality=quality).backward()
        assert quality.grad is None
        with plain_formulas():
            loss(logits, INDEX, quality=quality).backward()
        assert quality.grad is None

    def test_is_never_made_dense(self, name):
        value = build(name)(example(), INDEX, quality=QUALITY)  # keeps the saved tensors alive
        _, *kept = value.grad_fn.saved_tensors
        assert [saved.shape for saved in kept if saved is not None] == [(9,), (9,)]

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("reduction", ["none", "mean", "image"])
    def test_blocks_give_what_autograd_gives(self, name, dtype, reduction, monkeypatch):
        monkeypatch.setattr(blocks, "BLOCK", 2 * CLASSES)
        arguments = (build(name), example(dtype), INDEX, QUALITY, torch.arange(9) * 0.5, reduction)
        found = value_and_gradient(*arguments)
        with plain_formulas():
            expected = value_and_gradient(*arguments)
        assert_close(found, expected)

    def test_asks_for_no_value(self, name):
        """A meta tensor has none: whoever asks gets an error."""
        logits = example().detach().to("meta").requires_grad_()
        build(name)(logits, INDEX.to("meta"), quality=QUALITY.to("meta")).backward()
        assert logits.grad.shape == logits.shape

    def test_gradients_are_those_of_the_value(self, name):
        loss, logits = build(name), example()

        def rows(x):
            return loss.compute(x, INDEX, quality=QUALITY, weight=None, reduction="none")

        assert gradcheck(holding_constants(rows), logits)
        assert gradgradcheck(holding_constants(rows), logits)

    def test_the_mean_divides_by_what_it_divides_by_without(self, name):
        loss, logits = build(name), example()
        total = loss.compute(logits, INDEX, quality=QUALITY, weight=None, reduction="sum")
        assert_close(loss(logits, INDEX, quality=QUALITY), total / (8 * CLASSES))
        assert_close(loss(logits, INDEX, None, 5.0, quality=QUALITY), total / 5)

    @pytest.mark.parametrize("of", ["rows", "elements"])
    def test_weight_zero_silences_whatever_the_row_holds(self, name, of):
        loss, logits = build(name), example()
        clean = value_and_gradient(loss, logits)
        quality, weight = QUALITY.clone(), torch.ones(9)
        weight[1] = 0
        quality[1] = math.nan
        if of == "elements":
            weight = weight[:, None].expand(9, CLASSES)
        with torch.no_grad():
            logits[1] = math.nan
        for forced in (False, True):
            if forced:
                with plain_formulas():
                    found = value_and_gradient(loss, logits, INDEX, quality, weight)
            else:
                found = value_and_gradient(loss, logits, INDEX, quality, weight)
            for one, other in zip(found, clean, strict=True):
                assert (one[1] == 0).all()
                assert_close(one[2:], other[2:])

    def test_leading_axes_are_rows(self, name):
        loss, logits = build(name), example()
        expected = value_and_gradient(loss, logits)[0]
        shape = (3, 3)
        images = (t.unflatten(0, shape) for t in (logits, INDEX))
        found = loss.compute(
            *images, quality=QUALITY.unflatten(0, shape), weight=None, reduction="none"
        )
        assert_close(found, expected.unflatten(0, shape))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("label", [0.0, 1e-30, 0.3, 0.999, 1.0])
    def test_saturated_logits_are_finite_with_a_finite_gradient(self, name, dtype, label):
        sizes = [0.0, 1e-3, 1.0, 17.0, 40.0, 90.0, 104.0, 710.0, 750.0, 1e4]
        x = torch.tensor(sizes + [-size for size in sizes], dtype=dtype)[:, None].requires_grad_()
        index, quality = torch.zeros(len(x), dtype=torch.long), torch.full((len(x),), label)
        variants = [v for v in fuzz.variants("classification", name) if not list(v.buffers())]
        for loss in (build(name), *variants):
            value, gradient = value_and_gradient(loss, x, index, quality)
            assert (value.isfinite() & (value >= 0)).all(), loss
            assert gradient.isfinite().all(), loss

    def test_a_surely_right_answer_keeps_its_digits_in_float32(self, name):
        """As a plain positive does: neither ``1 - p`` nor ``x - x`` is a number to go on."""
        loss = build(name)
        x = torch.tensor([[4.0], [8.0], [12.0], [16.0]], requires_grad=True)
        index, quality = torch.zeros(4, dtype=torch.long), torch.ones(4)
        found = value_and_gradient(loss, x, index, quality)
        wide = value_and_gradient(loss, x.detach().double().requires_grad_(), index, quality)
        for one, other in zip(found, wide, strict=True):
            assert_close(one.double(), other, rtol=1e-5, atol=0)

    def test_in_inference_mode_and_in_a_block_without_gradients(self, name):
        loss, logits = build(name), example()
        expected = value_and_gradient(loss, logits)[0]
        with torch.no_grad():
            assert_close(
                loss.compute(logits, INDEX, quality=QUALITY, weight=None, reduction="none"),
                expected,
            )
        with torch.inference_mode():
            made_here = (logits + 0, INDEX + 0)
            value = loss.compute(*made_here, quality=QUALITY + 0, weight=None, reduction="none")
        assert_close(value, expected)

    def test_each_row_by_vmap(self, name):
        loss, logits = build(name), example()
        rows = torch.func.vmap(lambda x, index, q: loss.function(x, index, quality=q))
        expected = value_and_gradient(loss, logits)[0]
        assert_close(rows(logits, INDEX, QUALITY.double()), expected)


@pytest.mark.parametrize(
    "name", [n for n in TAKING if "label_smoothing" in options_of(CLASSIFICATION[n])]
)
@pytest.mark.parametrize("way", ["closed form", "plain formula"])
def test_label_smoothing_smooths_the_quality_too(name, way):
    """The label y of the row's class becomes ``y (1 - e) + e / 2``, that of the others e / 2."""
    loss, plain, logits = build(name, label_smoothing=0.2), build(name), example()
    labels = dense(plain) * 0.8 + 0.1
    counts = (INDEX != -1).double()
    expected = value_and_gradient(plain, logits, labels, None, counts)
    if way == "closed form":
        found = value_and_gradient(loss, logits)
    else:
        with plain_formulas():
            found = value_and_gradient(loss, logits)
    assert_close(found, expected, rtol=1e-6, atol=1e-12)
