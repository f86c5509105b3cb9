"""Softmax focal loss. What holds for every registered loss is in test_contract.py."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing import assert_close

from detloss.classification import (
    SoftmaxFocalLoss,
    softmax_cross_entropy,
    softmax_focal_loss,
)

GAMMAS = [0.0, 0.25, 0.5, 1.0, 2.0, 5.0]
SEEDS = st.integers(0, 2**31)


def example(seed, rows=5, columns=4):
    """Logits, class indices of which the second is ignored, and probabilities."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, columns, generator=generator, dtype=torch.float64) * 3
    index = torch.randint(columns, (rows,), generator=generator)
    index[1] = -1
    share = torch.rand(rows, columns, generator=generator, dtype=torch.float64).softmax(-1)
    return logits, index, share


def value_and_gradient(logits, target, loss=softmax_focal_loss, **options):
    logits = logits.detach().requires_grad_()
    value = loss(logits, target, **options)
    value.sum().backward()
    return value.detach(), logits.grad


@pytest.mark.parametrize(
    ("logits", "target", "alpha", "gamma", "expected"),
    [
        pytest.param([0.0] * 4, 3, None, 2.0, 9 / 16 * math.log(4), id="p 1/4: (3/4)^2 ln 4"),
        pytest.param([0.0] * 4, 3, None, 1.0, 3 / 4 * math.log(4), id="gamma 1: 3/4 ln 4"),
        pytest.param([0.0] * 4, 3, None, 0.0, math.log(4), id="gamma 0: ln 4"),
        pytest.param(
            [0.0] * 4, 3, [1, 1, 1, 0.5], 2.0, 9 / 32 * math.log(4), id="alpha of the true class"
        ),
        pytest.param(
            [math.log(9), 0], 0, None, 2.0, 0.01 * math.log(10 / 9), id="p 9/10: a hundredth"
        ),
        pytest.param([1e4, -1e4], 0, None, 0.5, 0.0, id="surely right"),
        pytest.param([1e4, -1e4], 1, None, 0.5, 2e4, id="surely wrong: the lead of the winner"),
        pytest.param([3.0], 0, None, 2.0, 0.0, id="one column: p is 1"),
    ],
)
def test_values_worked_by_hand(logits, target, alpha, gamma, expected):
    loss = softmax_focal_loss(
        torch.tensor([logits]), torch.tensor([target]), alpha=alpha, gamma=gamma
    )
    assert_close(loss, torch.tensor([expected]))


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        pytest.param(
            None, 0.9 / 16 * math.log(4 / 3) + 0.9 / 16 * math.log(4), id="9/10 and 9 times 1/10"
        ),
        pytest.param(
            [0.0, 1.0], 0.9 / 16 * math.log(4), id="alpha of each class, not of the label's"
        ),
    ],
)
def test_label_smoothing_worked_by_hand(alpha, expected):
    """Probabilities 3/4, 1/4: (1/4)^2 ln 4/3 and (3/4)^2 ln 4; e = 0.2 leaves q = 0.9, 0.1."""
    loss = softmax_focal_loss(
        torch.tensor([[math.log(3), 0.0]]), torch.tensor([0]), alpha=alpha, label_smoothing=0.2
    )
    assert_close(loss, torch.tensor([expected]))


def reference_focal(row, true, alpha, gamma):
    """``-alpha_t (1 - p_t)^gamma ln p_t`` on Python floats; 1 - p_t as the sum of the others."""
    powers = [math.exp(value) for value in row]
    p = powers[true] / sum(powers)
    rest = sum(power for c, power in enumerate(powers) if c != true) / sum(powers)
    return -alpha[true] * rest**gamma * math.log(p)


@pytest.mark.parametrize("gamma", [*GAMMAS, 1.5])
@pytest.mark.parametrize("alpha", [None, [0.25, 0.5, 1.0]])
def test_grid_matches_the_paper(alpha, gamma):
    grid = list(itertools.product(itertools.product([-5.0, 0.0, 0.1, 6.0], repeat=3), range(3)))
    logits = torch.tensor([row for row, _ in grid], dtype=torch.float64)
    target = torch.tensor([true for _, true in grid])
    loss = softmax_focal_loss(logits, target, alpha=alpha, gamma=gamma)
    expected = [reference_focal(row, true, alpha or [1, 1, 1], gamma) for row, true in grid]
    # the reference's ln(p) of a p near 1 is good to 1e-16 / 3e-5
    assert_close(loss, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=0)


@settings(max_examples=30)
@given(SEEDS, st.sampled_from([0.5, 1.0, 2.0, 5.0]))
def test_gradient_is_the_docstring_formula(seed, gamma):
    logits, index, _ = example(seed)
    alpha = torch.tensor([0.25, 0.5, 1.0, 2.0], dtype=torch.float64)
    true = index.clamp(min=0)
    p = logits.softmax(-1)
    p_true = p.gather(-1, true[:, None])
    derivative = alpha[true][:, None] * (1 - p_true) ** gamma
    derivative = derivative * (1 - gamma * p_true * p_true.log() / (1 - p_true))
    expected = derivative * (p - functional.one_hot(true, 4))
    expected[1] = 0  # ignored
    gradient = value_and_gradient(logits, index, alpha=alpha, gamma=gamma)[1]
    assert_close(gradient, expected, rtol=1e-8, atol=1e-12)


@settings(max_examples=30)
@given(
    SEEDS, st.booleans(), st.sampled_from(["none", "sum", "mean"]), st.sampled_from([0.0, 0.1, 1.0])
)
def test_at_gamma_0_it_is_softmax_cross_entropy(seed, weighted, reduction, label_smoothing):
    logits, index, share = example(seed)
    options = {
        "label_smoothing": label_smoothing,
        "class_weight": [0.5, 1.0, 2.0, 4.0] if weighted else None,
        "reduction": reduction,
    }
    for target in (index, share):
        focal = value_and_gradient(logits * 10, target, gamma=0.0, **options)
        plain = value_and_gradient(logits * 10, target, softmax_cross_entropy, **options)
        assert_close(focal, plain, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("dense", [False, True])
def test_saturated_logits_are_finite_with_a_finite_gradient(dtype, gamma, dense):
    values = [-1e4, -100.0, -17.0, 0.0, 20.0, 40.0, 104.0, 1e4]
    rows = torch.tensor(list(itertools.product(values, repeat=3)), dtype=dtype)
    for true in range(3):
        target = torch.full((len(rows),), true)
        if dense:
            target = functional.one_hot(target, 3) * 0.7 + 0.1
        loss, gradient = value_and_gradient(rows, target, gamma=gamma)
        assert (loss.isfinite() & (loss >= 0)).all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_a_surely_wrong_answer_pulls_with_full_force(gamma):
    loss, gradient = value_and_gradient(torch.tensor([[1e4, -1e4]]), torch.tensor([1]), gamma=gamma)
    assert_close(loss, torch.tensor([2e4]))
    assert_close(gradient, torch.tensor([[1.0, -1.0]]))


@pytest.mark.parametrize("gamma", GAMMAS)
def test_a_surely_right_answer_pulls_no_more(gamma):
    loss, gradient = value_and_gradient(torch.tensor([[1e4, -1e4]]), torch.tensor([0]), gamma=gamma)
    assert_close(loss, torch.zeros(1))
    assert_close(gradient, torch.zeros(1, 2))


def test_a_well_known_example_keeps_its_digits_in_float32():
    """At a lead of 12 and gamma 2, ``1 - p`` is 6e-6, of which float32 would have lost 1 %."""
    loss = softmax_focal_loss(torch.tensor([[12.0, 0.0]]), torch.tensor([0]))
    rest = 1 / (1 + math.exp(12))
    assert loss.item() == pytest.approx(-(rest**2) * math.log1p(-rest), rel=2e-2)
    ratio = loss / softmax_cross_entropy(torch.tensor([[12.0, 0.0]]), torch.tensor([0]))
    assert_close(ratio, torch.tensor([rest**2]), rtol=1e-5, atol=0)


@settings(max_examples=30)
@given(SEEDS, st.sampled_from(GAMMAS))
def test_linear_in_the_probabilities(seed, gamma):
    logits, _, share = example(seed)
    alpha = [0.25, 0.5, 1.0, 2.0]
    costs = [
        softmax_focal_loss(logits, torch.full((len(logits),), c), alpha=alpha, gamma=gamma)
        for c in range(4)
    ]
    loss = softmax_focal_loss(logits, share, alpha=alpha, gamma=gamma)
    assert_close(loss, (share * torch.stack(costs, dim=-1)).sum(-1))


def test_one_hot_of_any_dtype_equals_the_index():
    logits, index, _ = example(3)
    index = index.clamp(min=0)
    one_hot = functional.one_hot(index, 4)
    expected = value_and_gradient(logits, index)
    for dtype in (torch.float64, torch.float32, torch.int64, torch.bool):
        assert_close(value_and_gradient(logits, one_hot.to(dtype)), expected)


@pytest.mark.parametrize(
    ("background_index", "order"),
    [
        pytest.param(-1, [0, 1, 2, 3], id="last: an index is its column"),
        pytest.param(0, [3, 0, 1, 2], id="first: the foreground moves one to the right"),
        pytest.param(2, [0, 1, 3, 2], id="third: only what lies beyond moves"),
    ],
)
def test_background_index_only_says_where_the_columns_are(background_index, order):
    """`order`: for each column, the class of which it holds the score; class 3 is background."""
    logits, index, _ = example(1)
    alpha = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    loss, gradient = value_and_gradient(logits, index, alpha=alpha)
    moved, moved_gradient = value_and_gradient(
        logits[:, order], index, alpha=alpha[order], background_index=background_index
    )
    assert_close(moved, loss)
    assert_close(moved_gradient, gradient[:, order])


def test_class_weight_divides_the_mean_and_alpha_does_not():
    """Equal logits of 2 at gamma 0, classes 0 and 1: ln 2 times 1 and 3."""
    logits, index = torch.zeros(2, 2), torch.tensor([0, 1])
    by_weight = SoftmaxFocalLoss(gamma=0.0, class_weight=[1.0, 3.0])(logits, index)
    by_alpha = SoftmaxFocalLoss(gamma=0.0, alpha=[1.0, 3.0])(logits, index)
    assert_close(by_weight, torch.tensor(4 * math.log(2) / 4))
    assert_close(by_alpha, torch.tensor(4 * math.log(2) / 2))


def test_ignored_rows_leave_the_mean():
    logits, index, _ = example(5)
    counted = index != -1
    expected = softmax_focal_loss(logits[counted], index[counted]).mean()
    assert_close(SoftmaxFocalLoss()(logits, index), expected)


@pytest.mark.parametrize("alpha", [0.25, 1, torch.tensor(0.25)])
def test_rejects_a_scalar_alpha(alpha):
    with pytest.raises(TypeError, match=r"alpha must be \(K,\) values.*a scalar only scales"):
        softmax_focal_loss(torch.zeros(1, 2), torch.tensor([0]), alpha=alpha)


def test_module_rejects_a_scalar_alpha_when_it_is_built():
    with pytest.raises(TypeError, match=r"SoftmaxFocalLoss: alpha: expected .*got 0\.25"):
        SoftmaxFocalLoss(alpha=0.25)
    with pytest.raises(TypeError, match=r"SoftmaxFocalLoss: alpha: expected .*got 0\.25"):
        SoftmaxFocalLoss(alpha=torch.tensor(0.25))


def test_rejects_a_negative_gamma():
    with pytest.raises(ValueError, match="gamma must be at least 0, got -1"):
        softmax_focal_loss(torch.zeros(1, 2), torch.tensor([1]), gamma=-1.0)


@pytest.mark.parametrize("name", ["alpha", "class_weight"])
def test_rejects_per_class_values_of_the_wrong_length(name):
    message = rf"{name} must have shape \(2,\), one value per class, got \(3,\)"
    with pytest.raises(ValueError, match=message):
        softmax_focal_loss(torch.zeros(1, 2), torch.tensor([1]), **{name: [0.1, 0.2, 0.3]})
