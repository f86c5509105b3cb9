"""Multi-label softmax cross-entropy. What holds for every loss is in test_contract.py."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing import assert_close

from detloss.classification import (
    MultilabelSoftmaxCrossEntropy,
    multilabel_softmax_cross_entropy,
    softmax_cross_entropy,
)

SEEDS = st.integers(0, 2**31)
QUARTER_HALF_QUARTER = [0.0, math.log(2), 0.0]


def value_and_gradient(logits, target, loss=multilabel_softmax_cross_entropy, **options):
    logits = logits.detach().requires_grad_()
    value = loss(logits, target, **options)
    value.sum().backward()
    return value.detach(), logits.grad


def example(seed):
    """Logits (6, 4) and multi-hot labels with 1 to 4 positives a row."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 4, generator=generator, dtype=torch.float64) * 5
    labels = torch.rand(6, 4, generator=generator) < 0.4
    labels[torch.arange(6), torch.randint(4, (6,), generator=generator)] = True
    return logits, labels


@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        pytest.param([0.0, 0, 0, 0], [1, 0, 1, 0], math.log(4), id="equal logits: ln K for any M"),
        pytest.param(QUARTER_HALF_QUARTER, [0, 1, 0], math.log(2), id="M 1: ln 2"),
        pytest.param(
            QUARTER_HALF_QUARTER, [1, 1, 0], 1.5 * math.log(2), id="M 2: (ln 4 + ln 2) / 2"
        ),
        pytest.param(
            QUARTER_HALF_QUARTER, [1, 1, 1], 5 / 3 * math.log(2), id="M 3: (2 ln 4 + ln 2) / 3"
        ),
        pytest.param(QUARTER_HALF_QUARTER, [0, 0, 0], 0.0, id="no positive class: 0"),
        pytest.param(
            QUARTER_HALF_QUARTER, [1, 3, 0], 1.25 * math.log(2), id="weights: (ln 4 + 3 ln 2) / 4"
        ),
        pytest.param([50.0, 50, -50], [1, 1, 0], math.log(2), id="its smallest value, ln M"),
    ],
)
def test_values_worked_by_hand(logits, labels, expected):
    loss = multilabel_softmax_cross_entropy(torch.tensor([logits]), torch.tensor([labels]))
    assert_close(loss, torch.tensor([expected]))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param([0, 1, 0], 1.2 * math.log(2), id="q 1/10, 8/10, 1/10"),
        pytest.param([1, 1, 0], 1.55 * math.log(2), id="q 9/20, 9/20, 1/10"),
        pytest.param([1, 1, 1], 5 / 3 * math.log(2), id="equal shares stay equal"),
        pytest.param([0, 0, 0], 0.0, id="no positive class: 0, smoothed or not"),
    ],
)
def test_label_smoothing_worked_by_hand(labels, expected):
    """Costs ln 4, ln 2, ln 4; e = 0.3 gives a tenth to each class."""
    loss = multilabel_softmax_cross_entropy(
        torch.tensor([QUARTER_HALF_QUARTER]), torch.tensor([labels]), label_smoothing=0.3
    )
    assert_close(loss, torch.tensor([expected]))


@settings(max_examples=30)
@given(SEEDS, st.sampled_from([0.0, 0.1, 1.0]))
def test_equals_pytorch_on_equal_shares(seed, label_smoothing):
    logits, labels = example(seed)
    options = {"label_smoothing": label_smoothing, "reduction": "none"}
    share = labels / labels.sum(-1, keepdim=True).double()
    expected = value_and_gradient(logits, share, functional.cross_entropy, **options)
    found = value_and_gradient(logits, labels, **options)
    assert_close(found, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=30)
@given(SEEDS)
def test_every_row_matches_the_definition(seed):
    logits, labels = example(seed)
    expected = []
    for row, positive in zip(logits.tolist(), labels.tolist(), strict=True):
        total = math.fsum(math.exp(value) for value in row)
        costs = [math.log(total) - value for value, yes in zip(row, positive, strict=True) if yes]
        expected.append(sum(costs) / len(costs))
    loss = multilabel_softmax_cross_entropy(logits, labels)
    assert_close(loss, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)


@settings(max_examples=30)
@given(SEEDS)
def test_gradient_is_softmax_minus_the_equal_shares(seed):
    logits, labels = example(seed)
    expected = logits.softmax(-1) - labels / labels.sum(-1, keepdim=True).double()
    assert_close(value_and_gradient(logits, labels)[1], expected, rtol=1e-10, atol=1e-14)


@settings(max_examples=30)
@given(SEEDS)
def test_never_below_ln_m(seed):
    logits, labels = example(seed)
    loss = multilabel_softmax_cross_entropy(logits, labels)
    assert (loss >= labels.sum(-1).double().log() - 1e-12).all()


def test_a_row_without_a_positive_has_no_gradient():
    labels = torch.tensor([[0, 0, 0], [0, 1, 0]])
    for label_smoothing in (0.0, 0.2):
        _, gradient = value_and_gradient(torch.randn(2, 3), labels, label_smoothing=label_smoothing)
        assert torch.equal(gradient[0], torch.zeros(3))
        assert (gradient[1] != 0).all()


@pytest.mark.parametrize("background_index", [-1, 0])
def test_one_positive_is_softmax_cross_entropy(background_index):
    logits, index = torch.randn(4, 3), torch.tensor([0, 1, 2, -1])
    options = {
        "background_index": background_index,
        "class_weight": [1.0, 2.0, 3.0],
        "reduction": "mean",
    }
    expected = value_and_gradient(logits, index, softmax_cross_entropy, **options)
    assert_close(value_and_gradient(logits, index, **options), expected)


def test_labels_of_any_dtype_are_equal():
    logits, labels = example(0)
    expected = value_and_gradient(logits, labels.double())
    for dtype in (torch.bool, torch.int64, torch.uint8, torch.float32):
        assert_close(value_and_gradient(logits, labels.to(dtype)), expected)


def test_class_weight_scales_the_positives():
    """Equal logits, M 2: (2 ln 3 + 6 ln 3) / 2."""
    loss = MultilabelSoftmaxCrossEntropy(class_weight=[2.0, 4.0, 6.0], reduction="none")(
        torch.zeros(1, 3), torch.tensor([[1, 0, 1]])
    )
    assert_close(loss, torch.tensor([4 * math.log(3)]))


def test_rejects_class_weight_of_the_wrong_length():
    with pytest.raises(ValueError, match=r"class_weight must have shape \(3,\), .* got \(2,\)"):
        multilabel_softmax_cross_entropy(
            torch.zeros(1, 3), torch.tensor([[1, 0, 1]]), class_weight=[1.0, 2.0]
        )


def test_rejects_logits_that_are_no_tensor():
    with pytest.raises(TypeError, match="logits must be a tensor, got list"):
        multilabel_softmax_cross_entropy([[0.5, 1.0]], torch.tensor([[1, 0]]))
