"""Logit-adjusted loss. What holds for every registered loss is in test_contract.py."""

import itertools
import math
from contextlib import nullcontext

import pytest
import torch
from labelled import LABELS, WITH_BACKGROUND, assert_gives
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import gradcheck
from torch.testing import assert_close

import detloss
from detloss.classification import (
    LogitAdjustedLoss,
    logit_adjusted_loss,
    softmax_cross_entropy,
)
from detloss.kernels import blocks, plain_formulas
from detloss.tensors import without_host_sync

COUNTS = [100, 10, 1, 1000]
"""Of a long tail, the background last."""
VALUES = [0.858900, 5.925297, 0.116424]
GRADIENTS = [
    [-0.576372, 0.002109, 0.000945, 0.573318],
    [0.004892, 0.009826, -0.997329, 0.982611],
    [0.098371, 0.010872, 0.000659, -0.109902],
]


def value_and_gradient(logits, target, **options):
    logits = logits.detach().requires_grad_()
    loss = logit_adjusted_loss(logits, target, **options)
    return loss.detach(), torch.autograd.grad(loss.sum(), logits)[0]


@pytest.mark.parametrize(
    ("logits", "target", "options", "expected"),
    [
        pytest.param([0.0, 0], 0, {}, math.log(4 / 3), id="seen 3 of 4 times: 3/4"),
        pytest.param([0.0, 0], 1, {}, math.log(4), id="once: 1/4"),
        pytest.param([0.0, 0], 1, {"tau": 2.0}, math.log(10), id="tau 2: 9 to 1"),
        pytest.param([0.0, 0], 1, {"tau": 0.0}, math.log(2), id="tau 0: equal"),
        pytest.param(
            [0.0, math.log(3)], 1, {}, math.log(2), id="a rare class needs the lead that it lacks"
        ),
        pytest.param([1e4, 1e4], 1, {}, math.log(4), id="no digit is lost to large logits"),
        pytest.param([-1e4, 1e4], 1, {}, 0.0, id="surely right"),
    ],
)
def test_values_worked_by_hand(logits, target, options, expected):
    row, index = torch.tensor([logits]), torch.tensor([target])
    for way in (nullcontext, plain_formulas, without_host_sync):
        with way():
            loss = logit_adjusted_loss(row, index, counts=[3, 1], **options)
        assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_values_and_gradients_of_the_authors_code():
    """Cross-entropy of the logits plus the logarithm of the prior, in float64."""
    assert_gives(VALUES, GRADIENTS, logit_adjusted_loss, WITH_BACKGROUND, counts=COUNTS)


def reference(row, true, counts, tau):
    """The paper's loss, on Python floats: of classes that are seen n times, n^tau exp(x)."""
    powers = [count**tau * math.exp(x) for x, count in zip(row, counts, strict=True)]
    return -math.log(powers[true] / sum(powers))


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_grid_matches_the_paper(tau):
    counts = [100.0, 10.0, 0.5]
    grid = list(itertools.product(itertools.product([-3.0, 0.0, 0.1, 2.0], repeat=3), range(3)))
    logits = torch.tensor([row for row, _ in grid], dtype=torch.float64)
    target = torch.tensor([true for _, true in grid])
    loss, gradient = value_and_gradient(logits, target, counts=counts, tau=tau)
    expected = torch.tensor([reference(*each, counts, tau) for each in grid], dtype=torch.float64)
    assert_close(loss, expected, rtol=1e-9, atol=1e-14)
    prior = torch.tensor(counts, dtype=torch.float64).log()
    p = (logits + tau * prior).softmax(-1)
    assert_close(gradient, p - torch.nn.functional.one_hot(target, 3), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("counts", [None, [7, 7, 7, 7]])
def test_of_columns_that_are_equally_frequent_it_is_cross_entropy(counts):
    options = {"label_smoothing": 0.1, "class_weight": [1.0, 2.0, 0.5, 3.0]}
    for target in (LABELS, WITH_BACKGROUND.softmax(-1)):
        assert_close(
            logit_adjusted_loss(WITH_BACKGROUND, target, counts=counts, **options),
            softmax_cross_entropy(WITH_BACKGROUND, target, **options),
        )


def test_only_their_ratios_count():
    expected = logit_adjusted_loss(WITH_BACKGROUND, LABELS, counts=COUNTS)
    shares = torch.tensor(COUNTS, dtype=torch.float64) / 1111
    assert_close(logit_adjusted_loss(WITH_BACKGROUND, LABELS, counts=shares), expected)


def test_a_background_of_the_mean_of_the_others_keeps_its_balance_against_them():
    """Of equal logits, the background's probability is that without counts."""
    logits, background = torch.zeros(1, 4), torch.tensor([3])
    loss = logit_adjusted_loss(logits, background, counts=[100, 10, 1, 37])
    assert_close(loss, softmax_cross_entropy(logits, background))


@pytest.mark.parametrize(("background_index", "order"), [(-1, [0, 1, 2, 3]), (0, [3, 0, 1, 2])])
def test_counts_are_in_the_order_of_the_columns(background_index, order):
    loss = logit_adjusted_loss(
        WITH_BACKGROUND[:, order],
        LABELS,
        counts=[COUNTS[i] for i in order],
        background_index=background_index,
    )
    assert_close(loss, torch.tensor(VALUES, dtype=torch.float64), atol=1e-6, rtol=0)


class TestWithCounts:
    """What test_contract.py asks of a loss, whose default counts are none."""

    @pytest.fixture(params=["index", "smoothed", "share"])
    def call(self, request):
        """The rows (6, 4), in which one is ignored, and the loss of them."""
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(6, 4, generator=generator, dtype=torch.float64) * 3
        target = torch.tensor([0, 1, 2, 3, -1, 2])
        if request.param == "share":
            target = torch.rand(6, 4, generator=generator, dtype=torch.float64)
        smoothing = 0.1 if request.param == "smoothed" else 0.0
        loss = LogitAdjustedLoss(counts=COUNTS, label_smoothing=smoothing, reduction="none")
        return logits.requires_grad_(), target, loss

    def test_gradient_is_that_of_the_value(self, call):
        logits, target, loss = call
        assert gradcheck(lambda x: loss(x, target), logits)

    @pytest.mark.parametrize("way", [plain_formulas, without_host_sync])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_however_it_is_computed_it_is_the_same(self, call, dtype, way, monkeypatch):
        monkeypatch.setattr(blocks, "BLOCK", 8)
        logits, target, loss = call
        results = []
        for each in (torch.enable_grad, way):
            pred = logits.detach().to(dtype).requires_grad_()
            with each():
                value = loss(pred, target, torch.linspace(0, 2, 6))
                value.sum().backward()
            results.append((value.detach(), pred.grad))
        assert_close(*results)

    def test_weight_zero_silences_whatever_the_row_holds(self, call):
        logits, target, loss = call
        clean = loss(logits, target).detach()
        poisoned = logits.detach().clone()
        poisoned[1] = math.nan
        poisoned.requires_grad_()
        value = loss(poisoned, target, torch.tensor([1.0, 0, 1, 1, 1, 1]))
        value.sum().backward()
        assert value[1] == 0
        assert (poisoned.grad[1] == 0).all()
        assert poisoned.grad.isfinite().all()
        assert_close(value[2:], clean[2:])

    def test_does_not_change_the_logits(self, call):
        logits, target, loss = call
        before = logits.detach().clone()
        loss(logits, target).sum().backward()
        assert torch.equal(logits, before)

    def test_compiles_to_one_graph(self, call):
        torch._dynamo.reset()
        logits, target, loss = call
        counter = CompileCounterWithBackend("aot_eager")
        compiled = torch.compile(loss, fullgraph=True, backend=counter)
        found, expected = compiled(logits, target), loss(logits, target)
        assert_close(found, expected)
        assert_close(*(torch.autograd.grad(v.sum(), logits)[0] for v in (found, expected)))
        assert counter.frame_count == 1

    def test_asks_for_no_value(self, call):
        logits, target, loss = call
        logits = logits.detach().to("meta").requires_grad_()
        loss(logits, target.to("meta")).sum().backward()
        assert logits.grad.shape == logits.shape


def test_counts_come_from_a_config_and_follow_the_module():
    config = {"type": "logit_adjusted", "counts": [3, 1.5], "tau": 0.5}
    loss = detloss.build_part("classification", config)
    assert loss.config()["counts"] == [3.0, 1.5]
    assert set(dict(loss.named_buffers())) == {"counts"}
    assert loss.state_dict() == {}
    assert loss.to("meta").counts.is_meta


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": -1}, "tau must be at least 0, got -1"),
        ({"counts": [1, 2, 3]}, r"counts must have shape \(4,\), one value per class, got \(3,\)"),
        ({"counts": [1, 2, 3, 0]}, "counts must be finite and greater than 0, got 0"),
    ],
)
def test_rejects_options(options, message):
    with pytest.raises(ValueError, match=message):
        logit_adjusted_loss(WITH_BACKGROUND, LABELS, **options)


@pytest.mark.parametrize("counts", [[1, 0], torch.tensor([1.0, 0.0])])
def test_rejects_a_class_that_is_never_seen_when_it_is_built(counts):
    with pytest.raises(ValueError, match="counts must be finite and greater than 0, got 0"):
        LogitAdjustedLoss(counts=counts)
    with pytest.raises(detloss.ConfigError, match="classification.counts: must be finite and gre"):
        detloss.build_part("classification", {"type": "logit_adjusted", "counts": counts})


def test_refuses_integer_logits():
    with pytest.raises(TypeError, match="logits must be floating point, got torch.int64"):
        logit_adjusted_loss(torch.zeros(2, 2).long(), torch.tensor([0, 1]), counts=[1, 2])
