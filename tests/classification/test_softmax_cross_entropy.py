"""Softmax cross-entropy. What holds for every registered loss is in test_contract.py."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing import assert_close

from detloss.classification import SoftmaxCrossEntropy, softmax_cross_entropy

SEEDS = st.integers(0, 2**31)
REDUCTIONS = st.sampled_from(["none", "sum", "mean"])


def example(seed, rows=5, columns=4):
    """Logits, class indices of which the second is ignored, and probabilities."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, columns, generator=generator, dtype=torch.float64) * 5
    index = torch.randint(columns, (rows,), generator=generator)
    index[1] = -1
    share = torch.rand(rows, columns, generator=generator, dtype=torch.float64).softmax(-1)
    return logits, index, share


def value_and_gradient(logits, target, loss=softmax_cross_entropy, **options):
    logits = logits.detach().requires_grad_()
    value = loss(logits, target, **options)
    value.sum().backward()
    return value.detach(), logits.grad


@pytest.mark.parametrize(
    ("logits", "target", "expected"),
    [
        pytest.param([0.0, 0, 0, 0], 3, math.log(4), id="equal logits: ln K"),
        pytest.param([7.0, 7, 7, 7], 0, math.log(4), id="a common shift changes nothing"),
        pytest.param([math.log(3), 0], 0, math.log(4 / 3), id="p 3/4: ln 4/3"),
        pytest.param([math.log(3), 0], 1, math.log(4), id="p 1/4: ln 4"),
        pytest.param([0.0, 0], -1, 0.0, id="ignored"),
        pytest.param([1e4, -1e4], 0, 0.0, id="surely right"),
        pytest.param([1e4, -1e4], 1, 2e4, id="surely wrong: the lead of the winner"),
    ],
)
def test_values_worked_by_hand(logits, target, expected):
    loss = softmax_cross_entropy(torch.tensor(logits), torch.tensor(target))
    assert_close(loss, torch.tensor(expected))


def test_probabilities_worked_by_hand():
    """Probabilities 3/4, 1/4 against q = 1/2, 1/2: the mean of ln 4/3 and ln 4."""
    loss = softmax_cross_entropy(torch.tensor([[math.log(3), 0.0]]), torch.tensor([[0.5, 0.5]]))
    assert_close(loss, torch.tensor([math.log(16 / 3) / 2]))


def test_label_smoothing_worked_by_hand():
    """Probabilities 3/4, 1/4; e = 0.2 leaves q = 0.9, 0.1."""
    logits, target = torch.tensor([[math.log(3), 0.0]]), torch.tensor([0])
    loss = softmax_cross_entropy(logits, target, label_smoothing=0.2)
    assert_close(loss, torch.tensor([0.9 * math.log(4 / 3) + 0.1 * math.log(4)]))


@settings(max_examples=30)
@given(SEEDS, REDUCTIONS, st.booleans(), st.sampled_from([0.0, 0.1, 1.0]))
def test_equals_pytorch_on_class_indices(seed, reduction, weighted, smoothing):
    logits, index, _ = example(seed)
    weight = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64) if weighted else None
    expected = value_and_gradient(
        logits,
        index,
        functional.cross_entropy,
        weight=weight,
        ignore_index=-1,
        label_smoothing=smoothing,
        reduction=reduction,
    )
    found = value_and_gradient(
        logits, index, class_weight=weight, label_smoothing=smoothing, reduction=reduction
    )
    assert_close(found, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=30)
@given(SEEDS, REDUCTIONS, st.booleans(), st.sampled_from([0.0, 0.1, 1.0]))
def test_equals_pytorch_on_probabilities(seed, reduction, weighted, smoothing):
    logits, _, share = example(seed)
    weight = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64) if weighted else None
    expected = value_and_gradient(
        logits,
        share,
        functional.cross_entropy,
        weight=weight,
        label_smoothing=smoothing,
        reduction=reduction,
    )
    found = value_and_gradient(
        logits, share, class_weight=weight, label_smoothing=smoothing, reduction=reduction
    )
    assert_close(found, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=30)
@given(SEEDS)
def test_gradient_is_softmax_minus_one_hot(seed):
    logits, index, share = example(seed)
    expected = logits.softmax(-1) - functional.one_hot(index.clamp(min=0), 4)
    expected[1] = 0  # ignored
    assert_close(value_and_gradient(logits, index)[1], expected, rtol=1e-12, atol=1e-14)
    soft = value_and_gradient(logits, share)[1]
    assert_close(soft, logits.softmax(-1) - share, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("lead", [-600, -200, -95, -75, -69.5, -68.5, -5, 0, 5, 20, 80])
def test_is_exact_however_far_ahead_or_behind_the_true_class_is(lead):
    value, gradient = value_and_gradient(torch.tensor([[lead, 0.0, -1.0]]), torch.tensor([0]))
    others = torch.tensor([0.0, -1.0], dtype=torch.float64).sub(lead).exp()
    p = others / (1 + others.sum())
    assert_close(value.double(), others.sum().log1p()[None], rtol=1e-6, atol=0)
    assert_close(gradient.double(), torch.stack([-p.sum(), *p])[None], rtol=1e-6, atol=1e-38)


@pytest.mark.parametrize("class_weight", [None, [1.0, 2.0, 3.0]])
def test_all_rows_ignored_is_zero_with_a_zero_gradient(class_weight):
    loss, gradient = value_and_gradient(
        torch.randn(4, 3), torch.full((4,), -1), class_weight=class_weight, reduction="mean"
    )
    assert loss == 0
    assert torch.equal(gradient, torch.zeros(4, 3))


@pytest.mark.parametrize("ignore_index", [-100, 255, 1])
def test_any_index_can_be_the_ignored_one(ignore_index):
    logits, index, _ = example(0)
    index[1], index[2] = ignore_index, 0
    index[index == 1] = ignore_index
    expected = functional.cross_entropy(logits, index, ignore_index=ignore_index)
    loss = SoftmaxCrossEntropy(ignore_index=ignore_index)(logits, index)
    assert_close(loss, expected)


@pytest.mark.parametrize(
    ("background_index", "order"),
    [
        pytest.param(-1, [0, 1, 2, 3], id="last: an index is its column"),
        pytest.param(3, [0, 1, 2, 3], id="3 of 4 is the last too"),
        pytest.param(0, [3, 0, 1, 2], id="first: the foreground moves one to the right"),
        pytest.param(1, [0, 3, 1, 2], id="second: only what lies beyond moves"),
        pytest.param(-4, [3, 0, 1, 2], id="-4 of 4 is the first"),
    ],
)
def test_background_index_only_says_where_the_columns_are(background_index, order):
    """`order`: for each column, the class of which it holds the score; class 3 is background."""
    logits, index, _ = example(1)
    class_weight = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    loss, gradient = value_and_gradient(logits, index, class_weight=class_weight)
    moved, moved_gradient = value_and_gradient(
        logits[:, order],
        index,
        class_weight=class_weight[order],
        background_index=background_index,
    )
    assert_close(moved, loss)
    assert_close(moved_gradient, gradient[:, order])


def test_probabilities_are_one_for_each_column_wherever_the_background_is():
    logits, _, share = example(2)
    expected = softmax_cross_entropy(logits, share)
    assert torch.equal(softmax_cross_entropy(logits, share, background_index=0), expected)


def test_one_hot_of_any_dtype_equals_the_index():
    logits, index, _ = example(3)
    index = index.clamp(min=0)
    one_hot = functional.one_hot(index, 4)
    expected = value_and_gradient(logits, index)
    for dtype in (torch.float64, torch.float32, torch.int64, torch.bool):
        assert_close(value_and_gradient(logits, one_hot.to(dtype)), expected)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_labels_are_not_rounded_to_the_precision_of_the_logits(half):
    logits, share = torch.tensor([[0.3, -0.7]]).to(half), torch.tensor([[0.3, 0.7]])
    assert_close(softmax_cross_entropy(logits, share), softmax_cross_entropy(logits.float(), share))


@pytest.mark.parametrize("background_index", [-5, 4])
def test_rejects_a_background_index_without_a_column(background_index):
    message = rf"background_index must be in \[-4, 4\), got {background_index}"
    with pytest.raises(ValueError, match=message):
        softmax_cross_entropy(
            torch.zeros(1, 4), torch.tensor([0]), background_index=background_index
        )


def test_rejects_class_weight_without_a_value_for_the_background():
    with pytest.raises(ValueError, match=r"class_weight must have shape \(4,\), .* got \(3,\)"):
        softmax_cross_entropy(torch.zeros(1, 4), torch.tensor([0]), class_weight=[1.0, 1.0, 1.0])
