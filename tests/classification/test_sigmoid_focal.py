"""Sigmoid focal loss. What holds for every registered loss is in test_contract.py."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing import assert_close
from torchvision.ops import sigmoid_focal_loss as torchvision_focal_loss

from detloss.classification import (
    SigmoidFocalLoss,
    balanced_cross_entropy,
    prior_bias,
    sigmoid_cross_entropy,
    sigmoid_focal_loss,
)

LN2 = math.log(2)
GAMMAS = [0.0, 0.25, 0.5, 1.0, 2.0, 5.0]
EXTREME = [0.0, 1e-3, 1.0, 10.0, 17.0, 20.0, 40.0, 90.0, 104.0, 710.0, 750.0, 1e3, 1e4]
LOGITS = st.lists(st.floats(-12, 12), min_size=1, max_size=6)


def value_and_gradient(logits, target, loss=sigmoid_focal_loss, **options):
    logits = logits.detach().requires_grad_()
    value = loss(logits, target, **options)
    value.sum().backward()
    return value.detach(), logits.grad


@pytest.mark.parametrize(
    ("alpha", "gamma", "expected"),
    [
        pytest.param(0.25, 2.0, [0.1875 * LN2, 0.0625 * LN2], id="(1/2)^2 ln 2: 3/4 no, 1/4 yes"),
        pytest.param(None, 2.0, [0.25 * LN2, 0.25 * LN2], id="no alpha: (1/2)^2 ln 2"),
        pytest.param([0.5, 1.0], 2.0, [0.125 * LN2, 0.25 * LN2], id="per class: 1 - 1/2, then 1"),
        pytest.param([0.9, 0.2], 2.0, [0.025 * LN2, 0.05 * LN2], id="per class: 1 - 0.9, then 0.2"),
        pytest.param(None, 1.0, [0.5 * LN2, 0.5 * LN2], id="gamma 1: 1/2 ln 2"),
        pytest.param(None, 0.0, [LN2, LN2], id="gamma 0: cross-entropy"),
    ],
)
def test_values_worked_by_hand(alpha, gamma, expected):
    logits, index = torch.zeros(1, 2), torch.tensor([1])
    loss = sigmoid_focal_loss(logits, index, alpha=alpha, gamma=gamma)
    assert_close(loss, torch.tensor([expected]))
    module = SigmoidFocalLoss(alpha=alpha, gamma=gamma, reduction="none")
    assert_close(module(logits, index), torch.tensor([expected]))


@pytest.mark.parametrize(
    ("alpha", "gamma", "expected"),
    [
        pytest.param(0.25, 2.0, [0.175 * LN2, 0.075 * LN2], id="1/4 of 1/40 + 27/40, 9/40 + 3/40"),
        pytest.param(0.25, 0.0, [0.7 * LN2, 0.3 * LN2], id="gamma 0: of ln 2"),
        pytest.param([1.0, 0.0], 1.0, [0.05 * LN2, 0.05 * LN2], id="per class: 1/2 of 1/10"),
        pytest.param(None, 2.0, [0.25 * LN2, 0.25 * LN2], id="no alpha: the same for any label"),
    ],
)
def test_label_smoothing_worked_by_hand(alpha, gamma, expected):
    """Logits of 0; e = 0.2 makes the labels 1/10 and 9/10."""
    logits, index = torch.zeros(1, 2), torch.tensor([1])
    loss = sigmoid_focal_loss(logits, index, alpha=alpha, gamma=gamma, label_smoothing=0.2)
    assert_close(loss, torch.tensor([expected]))


def test_a_known_example_fades_as_the_paper_says():
    """Section 3.2: at gamma 2 the loss of p_t = 0.9 is 100 times lower than cross-entropy."""
    logits, yes = torch.tensor([[math.log(9)]]), torch.ones(1, 1)
    ratio = sigmoid_cross_entropy(logits, yes) / sigmoid_focal_loss(logits, yes, alpha=None)
    assert_close(ratio, torch.tensor([[100.0]]))


def test_at_one_quarter_a_positive_counts_a_third_of_a_negative():
    yes, no = (sigmoid_focal_loss(torch.zeros(1, 1), torch.full((1, 1), y)) for y in (1.0, 0.0))
    assert_close(no, 3 * yes)


def reference_focal(x, y, alpha, gamma):
    """Equation 5 of the paper on Python floats; p and 1 - p apart, so that no digit is lost."""
    p, rest = 1 / (1 + math.exp(-x)), 1 / (1 + math.exp(x))
    yes, no = (1, 1) if alpha is None else (alpha, 1 - alpha)
    return -yes * y * rest**gamma * math.log(p) - no * (1 - y) * p**gamma * math.log(rest)


@pytest.mark.parametrize("gamma", [*GAMMAS, 1.5])
@pytest.mark.parametrize("alpha", [None, 0.0, 0.25, 0.5, 1.0])
def test_grid_matches_the_paper(alpha, gamma):
    logits = [-15.0, -3.0, -1.0, -0.1, 0.0, 0.5, 2.0, 10.0]
    grid = list(itertools.product(logits, [0.0, 0.3, 1.0]))
    x, y = torch.tensor(grid, dtype=torch.float64).unbind(-1)
    loss = sigmoid_focal_loss(x[:, None], y[:, None], alpha=alpha, gamma=gamma)
    expected = [reference_focal(logit, share, alpha, gamma) for logit, share in grid]
    # ln(p) of a p near 1, as the reference takes it, is good to 1e-16 / 3e-7
    assert_close(loss[:, 0], torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)


@settings(max_examples=30)
@given(LOGITS, st.sampled_from(GAMMAS), st.sampled_from([None, 0.25, 0.9]))
def test_gradient_is_the_docstring_formula(logits, gamma, alpha):
    x = torch.tensor([logits], dtype=torch.float64)
    for label, sign in ((1.0, -1), (0.0, 1)):
        q = (sign * x).sigmoid()
        weight = 1 if alpha is None else alpha if label else 1 - alpha
        expected = sign * weight * q**gamma * (q - gamma * (1 - q) * torch.log1p(-q))
        gradient = value_and_gradient(x, torch.full_like(x, label), alpha=alpha, gamma=gamma)[1]
        assert_close(gradient, expected, rtol=1e-9, atol=1e-14)


@settings(max_examples=30)
@given(
    st.lists(st.floats(-100, 100), min_size=1, max_size=6),
    st.floats(0, 1),
    st.sampled_from([None, 0.25, 0.75]),
)
def test_at_gamma_0_it_is_balanced_cross_entropy(logits, share, alpha):
    x = torch.tensor([logits], dtype=torch.float64)
    y = torch.full_like(x, share)
    focal = value_and_gradient(x, y, alpha=alpha, gamma=0.0)
    balanced = value_and_gradient(x, y, balanced_cross_entropy, alpha=alpha)
    assert_close(focal, balanced, rtol=1e-12, atol=1e-300)


@settings(max_examples=30)
@given(
    st.lists(st.floats(-15, 15), min_size=1, max_size=6),
    st.sampled_from([0.0, 1.0, 1.5, 2.0, 5.0]),
    st.sampled_from([0.0, 0.25, 0.9]),
)
def test_value_and_gradient_equal_torchvision_on_one_hot_targets(logits, gamma, alpha):
    x = torch.tensor(logits, dtype=torch.float64).repeat(3, 1)
    y = torch.zeros_like(x)
    y[0, 0] = y[1, -1] = 1  # the third row is background
    expected = value_and_gradient(x, y, torchvision_focal_loss, alpha=alpha, gamma=gamma)
    # torchvision's 1 - p_t loses up to 1e-16 / 3e-7 of its digits at a logit of 15
    found = value_and_gradient(x, y, alpha=alpha, gamma=gamma)
    assert_close(found, expected, rtol=1e-8, atol=1e-14)


@settings(max_examples=30)
@given(LOGITS, st.sampled_from([0.0, 1.5, 2.0]), st.sampled_from([None, 0.25]), st.floats(0, 1))
def test_label_smoothing_is_the_mean_of_both_answers_of_torchvision(
    logits, gamma, alpha, label_smoothing
):
    """With probability e / 2 the answer is the other one."""
    x = torch.tensor(logits, dtype=torch.float64).repeat(3, 1)
    index = torch.tensor([0, len(logits) - 1, len(logits)])
    y = functional.one_hot(index, len(logits) + 1)[:, :-1].double()
    peer = {"alpha": -1 if alpha is None else alpha, "gamma": gamma}
    right, wrong = (
        value_and_gradient(x, label, torchvision_focal_loss, **peer) for label in (y, 1 - y)
    )
    expected = tuple(
        (1 - label_smoothing / 2) * a + label_smoothing / 2 * b
        for a, b in zip(right, wrong, strict=True)
    )
    found = value_and_gradient(x, index, alpha=alpha, gamma=gamma, label_smoothing=label_smoothing)
    # torchvision's 1 - p_t loses up to 1e-16 / 6e-6 of its digits at a logit of 12
    assert_close(found, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_saturated_logits_are_finite_with_a_finite_gradient(dtype, gamma, share):
    x = torch.tensor([EXTREME + [-v for v in EXTREME]], dtype=dtype)
    loss, gradient = value_and_gradient(x, torch.full_like(x, share), gamma=gamma)
    assert (loss.isfinite() & (loss >= 0)).all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_a_surely_wrong_answer_costs_its_logit_and_pulls_with_full_force(gamma):
    x = torch.tensor([[-1e4, 1e4]])
    loss, gradient = value_and_gradient(x, torch.tensor([[1.0, 0.0]]), alpha=None, gamma=gamma)
    assert_close(loss, torch.tensor([[1e4, 1e4]]))
    assert_close(gradient, torch.tensor([[-1.0, 1.0]]))


@pytest.mark.parametrize("gamma", GAMMAS)
def test_a_surely_right_answer_costs_nothing_and_pulls_no_more(gamma):
    x = torch.tensor([[1e4, -1e4]])
    loss, gradient = value_and_gradient(x, torch.tensor([[1.0, 0.0]]), alpha=None, gamma=gamma)
    assert_close(loss, torch.zeros(1, 2))
    assert_close(gradient, torch.zeros(1, 2))


def test_a_well_known_example_keeps_its_digits_in_float32():
    """At logit 12 and gamma 2, ``q^2 * q`` = 2.3e-16: ``1 - p`` in float32 would have lost half."""
    loss = sigmoid_focal_loss(torch.tensor([[12.0]]), torch.ones(1, 1), alpha=None)
    q = 1 / (1 + math.exp(12))
    assert_close(loss, torch.tensor([[-(q**2) * math.log1p(-q)]]), rtol=1e-5, atol=0)


@settings(max_examples=30)
@given(LOGITS, st.floats(0, 1), st.sampled_from(GAMMAS))
def test_linear_in_the_label(logits, share, gamma):
    x = torch.tensor([logits], dtype=torch.float64)
    yes, no, mixed = (
        value_and_gradient(x, torch.full_like(x, label), gamma=gamma) for label in (1.0, 0.0, share)
    )
    expected = tuple(share * a + (1 - share) * b for a, b in zip(yes, no, strict=True))
    assert_close(mixed, expected, rtol=1e-10, atol=1e-14)


def test_class_index_is_its_one_hot_row_and_c_the_row_of_zeros():
    logits = torch.randn(4, 3)
    index = torch.tensor([0, 2, 3, 1])
    one_hot = functional.one_hot(index, 4)[:, :3].float()
    options = {"alpha": [0.1, 0.6, 0.9], "class_weight": [1.0, 2.0, 3.0]}
    expected = value_and_gradient(logits, one_hot, **options)
    assert_close(value_and_gradient(logits, index, **options), expected)
    assert_close(value_and_gradient(logits, index.to(torch.int32), **options), expected)


def test_integer_and_boolean_labels_equal_floating_ones():
    logits = torch.randn(4, 3)
    labels = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    expected = value_and_gradient(logits, labels.float())
    for dtype in (torch.bool, torch.int64, torch.uint8, torch.float64):
        assert_close(value_and_gradient(logits, labels.to(dtype)), expected)


def test_ignored_rows_are_exactly_zero_even_where_the_logits_are_nan():
    logits = torch.tensor([[0.0, 1.0], [math.nan, math.inf], [2.0, -1.0]])
    index = torch.tensor([0, -1, 2])
    loss, gradient = value_and_gradient(logits, index)
    assert torch.equal(loss[1], torch.zeros(2))
    assert torch.equal(gradient[1], torch.zeros(2))
    mean = sigmoid_focal_loss(logits, index, reduction="mean")
    assert_close(mean, sigmoid_focal_loss(logits[[0, 2]], index[[0, 2]], reduction="mean"))


def test_scalar_and_per_class_alpha_agree_where_they_say_the_same():
    logits, index = torch.randn(3, 2), torch.tensor([0, 1, 2])
    expected = value_and_gradient(logits, index, alpha=0.3)
    for alpha in ([0.3, 0.3], torch.tensor([0.3, 0.3]), torch.tensor([0.3, 0.3]).double()):
        assert_close(value_and_gradient(logits, index, alpha=alpha), expected)


def test_class_weight_multiplies_on_top_of_alpha():
    loss = sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([1]), class_weight=[2.0, 4.0])
    assert_close(loss, torch.tensor([[0.375 * LN2, 0.25 * LN2]]))


@pytest.mark.parametrize("pi", [0.01, 0.1, 0.5, 0.99])
def test_prior_bias_starts_every_class_at_its_probability(pi):
    assert 1 / (1 + math.exp(-prior_bias(pi))) == pytest.approx(pi, rel=1e-12)


def test_prior_bias_defaults_to_the_one_hundredth_of_section_4_1():
    assert prior_bias() == pytest.approx(-math.log(99), rel=1e-12)


@pytest.mark.parametrize("pi", [0.0, 1.0, -0.1, 1.5])
def test_prior_bias_rejects_what_is_no_probability(pi):
    with pytest.raises(ValueError, match=rf"pi must be in \(0, 1\), got {pi}"):
        prior_bias(pi)


def test_rejects_a_negative_gamma():
    with pytest.raises(ValueError, match="gamma must be at least 0, got -1"):
        sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([1]), gamma=-1.0)
    with pytest.raises(ValueError, match=r"SigmoidFocalLoss: gamma: .*greater than or equal to 0"):
        SigmoidFocalLoss(gamma=-1.0)


@pytest.mark.parametrize("alpha", [-0.1, 1.5])
def test_rejects_a_scalar_alpha_outside_0_to_1(alpha):
    with pytest.raises(ValueError, match=rf"alpha must be in \[0, 1\], got {alpha}"):
        sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([1]), alpha=alpha)


@pytest.mark.parametrize("name", ["alpha", "class_weight"])
def test_rejects_per_class_values_of_the_wrong_length(name):
    message = rf"{name} must have shape \(2,\), one value per class, got \(3,\)"
    with pytest.raises(ValueError, match=message):
        sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([1]), **{name: [0.1, 0.2, 0.3]})
