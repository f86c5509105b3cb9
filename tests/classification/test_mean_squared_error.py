"""Mean squared error on probabilities. What holds for every loss is in test_contract.py."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing import assert_close

from detloss.classification import MeanSquaredError, mean_squared_error

LOGITS = st.lists(st.floats(-15, 15), min_size=1, max_size=6)


def value_and_gradient(logits, target, **options):
    logits = logits.detach().requires_grad_()
    value = mean_squared_error(logits, target, **options)
    value.sum().backward()
    return value.detach(), logits.grad


@pytest.mark.parametrize(
    ("logit", "share", "expected"),
    [
        pytest.param(0.0, 1.0, 0.25, id="undecided, yes: (1/2)^2"),
        pytest.param(0.0, 0.0, 0.25, id="undecided, no: (1/2)^2"),
        pytest.param(0.0, 0.7, 0.04, id="undecided, 0.7: 0.2^2"),
        pytest.param(0.0, 0.5, 0.0, id="soft label met: 0, unlike cross-entropy"),
        pytest.param(math.log(3), 1.0, 1 / 16, id="p 3/4, yes: (1/4)^2"),
        pytest.param(math.log(3), 0.0, 9 / 16, id="p 3/4, no: (3/4)^2"),
        pytest.param(1e4, 0.0, 1.0, id="surely wrong: 1 is the most it can cost"),
    ],
)
def test_values_worked_by_hand(logit, share, expected):
    loss = mean_squared_error(torch.tensor([[logit]]), torch.tensor([[share]]))
    assert_close(loss, torch.tensor([[expected]]))


@pytest.mark.parametrize(
    ("label_smoothing", "share", "expected"),
    [
        pytest.param(0.2, 1.0, 0.0225, id="yes becomes 9/10: 0.15^2"),
        pytest.param(0.2, 0.0, 0.4225, id="no becomes 1/10: 0.65^2"),
        pytest.param(0.5, 1.0, 0.0, id="yes becomes 3/4: met"),
        pytest.param(0.5, 0.9, 0.0025, id="9/10 becomes 7/10: 0.05^2"),
        pytest.param(1.0, 1.0, 0.0625, id="1: every label is 1/2"),
    ],
)
def test_label_smoothing_worked_by_hand(label_smoothing, share, expected):
    """Probability 3/4."""
    loss = mean_squared_error(
        torch.tensor([[math.log(3)]]), torch.tensor([[share]]), label_smoothing=label_smoothing
    )
    assert_close(loss, torch.tensor([[expected]]))


@given(LOGITS, st.floats(0, 1))
def test_equals_pytorch_on_probabilities(logits, share):
    x = torch.tensor([logits], dtype=torch.float64)
    y = torch.full_like(x, share)
    assert_close(mean_squared_error(x, y), functional.mse_loss(x.sigmoid(), y, reduction="none"))


@given(LOGITS, st.floats(0, 1))
def test_gradient_is_the_docstring_formula(logits, share):
    x = torch.tensor([logits], dtype=torch.float64)
    y, p = torch.full_like(x, share), x.sigmoid()
    assert_close(value_and_gradient(x, y)[1], 2 * (p - y) * p * (1 - p), rtol=1e-9, atol=1e-15)


def test_gradient_vanishes_where_the_network_is_surely_wrong():
    _, gradient = value_and_gradient(torch.tensor([[1e4, -1e4]]), torch.tensor([[0.0, 1.0]]))
    assert torch.equal(gradient, torch.zeros(1, 2))


def test_class_index_is_its_one_hot_row_and_c_the_row_of_zeros():
    logits = torch.randn(4, 3)
    index = torch.tensor([0, 2, 3, 1])
    one_hot = functional.one_hot(index, 4)[:, :3]
    expected = value_and_gradient(logits, index, class_weight=[1.0, 2.0, 3.0])
    for dtype in (torch.float32, torch.int64, torch.bool):
        found = value_and_gradient(logits, one_hot.to(dtype), class_weight=[1.0, 2.0, 3.0])
        assert_close(found, expected)


def test_class_weight_scales_each_column_also_with_soft_labels():
    loss = mean_squared_error(
        torch.zeros(1, 2), torch.tensor([[1.0, 0.7]]), class_weight=[2.0, 5.0]
    )
    assert_close(loss, torch.tensor([[0.5, 0.2]]))


def test_ignored_rows_leave_the_mean():
    loss = MeanSquaredError()(torch.zeros(3, 2), torch.tensor([0, -1, 2]))
    assert_close(loss, torch.tensor(0.25))


def test_rejects_class_weight_of_the_wrong_length():
    with pytest.raises(ValueError, match=r"class_weight must have shape \(2,\), .* got \(1,\)"):
        mean_squared_error(torch.zeros(1, 2), torch.tensor([0]), class_weight=[1.0])
