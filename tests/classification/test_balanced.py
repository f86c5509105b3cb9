"""Alpha-balanced cross-entropy. What holds for every registered loss is in test_contract.py."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing import assert_close

from detloss.classification import (
    BalancedCrossEntropy,
    balanced_cross_entropy,
    sigmoid_cross_entropy,
)

LN2 = math.log(2)
LOGITS = st.lists(st.floats(-15, 15), min_size=1, max_size=6)


def value_and_gradient(logits, target, loss=balanced_cross_entropy, **options):
    logits = logits.detach().requires_grad_()
    value = loss(logits, target, **options)
    value.sum().backward()
    return value.detach(), logits.grad


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        pytest.param(0.75, [0.25 * LN2, 0.75 * LN2], id="float: 3/4 for yes, 1/4 for no"),
        pytest.param(0.5, [LN2 / 2, LN2 / 2], id="one half: half of plain cross-entropy"),
        pytest.param(0.0, [LN2, 0.0], id="0: negatives only"),
        pytest.param(1.0, [0.0, LN2], id="1: positives only"),
        pytest.param([0.9, 0.2], [0.1 * LN2, 0.2 * LN2], id="per class: 1 - 0.9 no, 0.2 yes"),
        pytest.param(None, [LN2, LN2], id="None: 1 and 1"),
    ],
)
def test_values_worked_by_hand(alpha, expected):
    logits, index = torch.zeros(1, 2), torch.tensor([1])
    assert_close(balanced_cross_entropy(logits, index, alpha=alpha), torch.tensor([expected]))
    assert_close(
        BalancedCrossEntropy(alpha=alpha, reduction="none")(logits, index), torch.tensor([expected])
    )


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        pytest.param(0.75, [0.3 * LN2, 0.7 * LN2], id="3/40 + 9/40 no, 27/40 + 1/40 yes"),
        pytest.param(1.0, [0.1 * LN2, 0.9 * LN2], id="1: what each label has of yes"),
        pytest.param(None, [LN2, LN2], id="None: ln 2 whatever the label"),
    ],
)
def test_label_smoothing_worked_by_hand(alpha, expected):
    """Logits of 0; e = 0.2 makes the labels 1/10 and 9/10."""
    logits, index = torch.zeros(1, 2), torch.tensor([1])
    loss = balanced_cross_entropy(logits, index, alpha=alpha, label_smoothing=0.2)
    assert_close(loss, torch.tensor([expected]))


def test_the_default_is_the_best_alpha_of_table_1a():
    logits, index = torch.randn(3, 2), torch.tensor([0, 1, 2])
    expected = balanced_cross_entropy(logits, index, alpha=0.75)
    assert torch.equal(balanced_cross_entropy(logits, index), expected)
    assert torch.equal(BalancedCrossEntropy(reduction="none")(logits, index), expected)


def reference_balanced(x, y, alpha):
    """Equation 3 of the focal loss paper on Python floats, for a label of 0 or 1."""
    p = 1 / (1 + math.exp(-x))
    return -alpha * math.log(p) if y else -(1 - alpha) * math.log(1 - p)


@given(LOGITS, st.sampled_from([0, 1]), st.floats(0, 1))
def test_every_logit_matches_the_paper(logits, label, alpha):
    x = torch.tensor([logits], dtype=torch.float64)
    expected = [[reference_balanced(value, label, alpha) for value in logits]]
    loss = balanced_cross_entropy(x, torch.full_like(x, label), alpha=alpha)
    # the reference's 1 - p has lost digits where p is near 1: 1e-16 in 3e-7
    assert_close(loss, torch.tensor(expected, dtype=torch.float64), rtol=1e-8, atol=1e-12)


@given(LOGITS, st.floats(0, 1), st.floats(0, 1))
def test_gradient_is_the_docstring_formula(logits, share, alpha):
    x = torch.tensor([logits], dtype=torch.float64)
    y, p = torch.full_like(x, share), x.sigmoid()
    expected = (1 - alpha) * (1 - y) * p - alpha * y * (1 - p)
    gradient = value_and_gradient(x, y, alpha=alpha)[1]
    assert_close(gradient, expected, rtol=1e-10, atol=1e-15)


@given(LOGITS, st.floats(0, 1))
def test_without_alpha_it_is_sigmoid_cross_entropy(logits, share):
    x = torch.tensor([logits], dtype=torch.float64)
    y = torch.full_like(x, share)
    assert torch.equal(balanced_cross_entropy(x, y, alpha=None), sigmoid_cross_entropy(x, y))


@given(LOGITS, st.floats(0, 1))
def test_linear_in_the_label(logits, share):
    x = torch.tensor([logits], dtype=torch.float64)
    yes, no = (balanced_cross_entropy(x, torch.full_like(x, label)) for label in (1.0, 0.0))
    loss = balanced_cross_entropy(x, torch.full_like(x, share))
    assert_close(loss, share * yes + (1 - share) * no)


def test_class_index_is_its_one_hot_row_and_c_the_row_of_zeros():
    logits = torch.randn(4, 3)
    index = torch.tensor([0, 2, 3, 1])
    one_hot = functional.one_hot(index, 4)[:, :3]
    options = {"alpha": [0.1, 0.6, 0.9], "class_weight": [1.0, 2.0, 3.0]}
    assert_close(
        value_and_gradient(logits, index, **options), value_and_gradient(logits, one_hot, **options)
    )


def test_class_weight_multiplies_on_top_of_alpha():
    loss = balanced_cross_entropy(
        torch.zeros(1, 2), torch.tensor([1]), alpha=0.75, class_weight=[2.0, 4.0]
    )
    assert_close(loss, torch.tensor([[0.5 * LN2, 3 * LN2]]))


@pytest.mark.parametrize("alpha", [-0.1, 1.5])
def test_rejects_a_scalar_alpha_outside_0_to_1(alpha):
    with pytest.raises(ValueError, match=rf"alpha must be in \[0, 1\], got {alpha}"):
        balanced_cross_entropy(torch.zeros(1, 2), torch.tensor([1]), alpha=alpha)
    with pytest.raises((TypeError, ValueError), match=r"BalancedCrossEntropy: alpha: expected"):
        BalancedCrossEntropy(alpha=alpha)


def test_rejects_alpha_of_the_wrong_length():
    with pytest.raises(ValueError, match=r"alpha must have shape \(2,\), .* got \(3,\)"):
        balanced_cross_entropy(torch.zeros(1, 2), torch.tensor([1]), alpha=[0.1, 0.2, 0.3])
