"""Sigmoid cross-entropy. What holds for every registered loss is in test_contract.py."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing import assert_close

from detloss.classification import SigmoidCrossEntropy, sigmoid_cross_entropy

LOGITS = st.lists(st.floats(-50, 50), min_size=1, max_size=6)


def value_and_gradient(logits, target, loss=sigmoid_cross_entropy, **options):
    logits = logits.detach().requires_grad_()
    value = loss(logits, target, **options)
    value.sum().backward()
    return value.detach(), logits.grad


@pytest.mark.parametrize(
    ("logit", "share", "expected"),
    [
        pytest.param(0.0, 1.0, math.log(2), id="undecided, yes: ln 2"),
        pytest.param(0.0, 0.0, math.log(2), id="undecided, no: ln 2"),
        pytest.param(0.0, 0.3, math.log(2), id="undecided: ln 2 whatever the share"),
        pytest.param(math.log(3), 1.0, math.log(4 / 3), id="p 3/4, yes: ln 4/3"),
        pytest.param(math.log(3), 0.0, math.log(4), id="p 3/4, no: ln 4"),
        pytest.param(math.log(3), 0.5, math.log(16 / 3) / 2, id="p 3/4, half: the mean of both"),
        pytest.param(1e4, 0.0, 1e4, id="surely wrong: the logit itself"),
        pytest.param(1e4, 1.0, 0.0, id="surely right"),
        pytest.param(-1e4, 1.0, 1e4, id="surely wrong the other way"),
    ],
)
def test_values_worked_by_hand(logit, share, expected):
    loss = sigmoid_cross_entropy(torch.tensor([[logit]]), torch.tensor([[share]]))
    assert_close(loss, torch.tensor([[expected]]))


@pytest.mark.parametrize(
    ("label_smoothing", "share", "expected"),
    [
        pytest.param(0.2, 1.0, 0.9 * math.log(4 / 3) + 0.1 * math.log(4), id="yes: 9/10 and 1/10"),
        pytest.param(0.2, 0.0, 0.1 * math.log(4 / 3) + 0.9 * math.log(4), id="no: 1/10 and 9/10"),
        pytest.param(0.2, 0.75, 0.7 * math.log(4 / 3) + 0.3 * math.log(4), id="3/4 becomes 7/10"),
        pytest.param(0.2, 0.5, math.log(16 / 3) / 2, id="undecided stays undecided"),
        pytest.param(1.0, 1.0, math.log(16 / 3) / 2, id="1: every label is undecided"),
        pytest.param(0.0, 1.0, math.log(4 / 3), id="0: as it was"),
    ],
)
def test_label_smoothing_worked_by_hand(label_smoothing, share, expected):
    """Probability 3/4, which costs ln 4/3 as a yes and ln 4 as a no."""
    loss = sigmoid_cross_entropy(
        torch.tensor([[math.log(3)]]), torch.tensor([[share]]), label_smoothing=label_smoothing
    )
    assert_close(loss, torch.tensor([[expected]]))


def reference_cross_entropy(x, y):
    """``-y ln p - (1 - y) ln(1 - p)`` on Python floats, in a form that keeps every digit."""
    tail = math.log1p(math.exp(-abs(x)))
    return y * (max(-x, 0) + tail) + (1 - y) * (max(x, 0) + tail)


@given(LOGITS, st.floats(0, 1))
def test_every_logit_matches_the_definition(logits, share):
    x = torch.tensor([logits], dtype=torch.float64)
    expected = torch.tensor(
        [[reference_cross_entropy(value, share) for value in logits]], dtype=torch.float64
    )
    loss = sigmoid_cross_entropy(x, torch.full_like(x, share))
    assert_close(loss, expected, rtol=1e-12, atol=1e-300)


@given(LOGITS, st.floats(0, 1))
def test_gradient_is_probability_minus_label(logits, share):
    x = torch.tensor([logits], dtype=torch.float64)
    y = torch.full_like(x, share)
    assert_close(value_and_gradient(x, y)[1], x.sigmoid() - y, rtol=0, atol=1e-12)


@given(LOGITS, st.floats(0, 1))
def test_equals_pytorch(logits, share):
    x = torch.tensor([logits], dtype=torch.float64)
    y = torch.full_like(x, share)
    expected = functional.binary_cross_entropy_with_logits(x, y, reduction="none")
    assert_close(sigmoid_cross_entropy(x, y), expected)
    mean = functional.binary_cross_entropy_with_logits(x, y)
    assert_close(sigmoid_cross_entropy(x, y, reduction="mean"), mean)


@given(LOGITS, st.floats(0, 1), st.floats(0, 1))
def test_label_smoothing_equals_pytorch_on_smoothed_labels(logits, share, label_smoothing):
    x = torch.tensor([logits], dtype=torch.float64)
    y = torch.full_like(x, share)
    expected = value_and_gradient(
        x,
        y * (1 - label_smoothing) + label_smoothing / 2,
        functional.binary_cross_entropy_with_logits,
        reduction="none",
    )
    found = value_and_gradient(x, y, label_smoothing=label_smoothing)
    assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_class_index_is_its_one_hot_row_and_c_the_row_of_zeros():
    logits = torch.randn(4, 3)
    index = torch.tensor([0, 2, 3, 1])  # 3 = C is background
    one_hot = functional.one_hot(index, 4)[:, :3].float()
    assert_close(value_and_gradient(logits, index), value_and_gradient(logits, one_hot))


def test_integer_and_boolean_labels_equal_floating_ones():
    logits = torch.randn(4, 3)
    labels = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    expected = value_and_gradient(logits, labels.float())
    for dtype in (torch.bool, torch.int64, torch.uint8, torch.float64):
        assert_close(value_and_gradient(logits, labels.to(dtype)), expected)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_labels_are_not_rounded_to_the_precision_of_the_logits(half):
    logits, labels = torch.tensor([[0.3, -0.7]]).to(half), torch.tensor([[0.3, 0.777]])
    assert_close(
        sigmoid_cross_entropy(logits, labels), sigmoid_cross_entropy(logits.float(), labels)
    )


@pytest.mark.parametrize("ignore_index", [-1, 255, 1])
def test_ignored_rows_are_exactly_zero_and_leave_the_mean(ignore_index):
    logits = torch.randn(3, 2)
    index = torch.tensor([0, ignore_index, 2])
    loss, gradient = value_and_gradient(logits, index, ignore_index=ignore_index)
    assert torch.equal(loss[1], torch.zeros(2))
    assert torch.equal(gradient[1], torch.zeros(2))
    mean = sigmoid_cross_entropy(logits, index, ignore_index=ignore_index, reduction="mean")
    assert_close(mean, loss[[0, 2]].mean())


def test_all_rows_ignored_is_zero_with_a_zero_gradient():
    loss, gradient = value_and_gradient(torch.randn(3, 2), torch.full((3,), -1), reduction="mean")
    assert loss == 0
    assert torch.equal(gradient, torch.zeros(3, 2))


def test_class_weight_scales_each_column_and_not_the_count():
    logits, index = torch.zeros(1, 2), torch.tensor([0])
    loss = SigmoidCrossEntropy(class_weight=[1.0, 3.0])(logits, index)
    assert_close(loss, torch.tensor(4 * math.log(2) / 2))


def test_rejects_class_weight_of_the_wrong_length():
    message = r"class_weight must have shape \(2,\), one value per class, got \(3,\)"
    with pytest.raises(ValueError, match=message):
        sigmoid_cross_entropy(torch.zeros(1, 2), torch.tensor([0]), class_weight=[1.0, 2.0, 3.0])


def test_rejects_floating_class_indices():
    with pytest.raises(TypeError, match=r"class indices in target must be integers, got .*float32"):
        sigmoid_cross_entropy(torch.zeros(3, 2), torch.zeros(3))
