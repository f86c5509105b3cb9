"""Poly-1 loss. What holds for every registered loss is in test_contract.py."""

import itertools
import math

import mpmath
import pytest
import torch
from labelled import LABELS, WITH_BACKGROUND, assert_gives
from torch.testing import assert_close

from detloss.classification import poly1_loss, softmax_cross_entropy
from detloss.kernels import plain_formulas

EPSILONS = [-1.0, -0.75, 0.0, 1.0, 2.0]
VALUES = [0.632250, 0.991840, 2.157144]
GRADIENTS = [
    [-0.495758, 0.060459, 0.270956, 0.164343],
    [0.016395, 0.329295, -0.674985, 0.329295],
    [0.338518, 0.374120, 0.226915, -0.939554],
]
LN_9 = math.log(9)  # of two columns, what gives 9/10


def value_and_gradient(logits, target, **options):
    logits = logits.detach().requires_grad_()
    loss = poly1_loss(logits, target, **options)
    return loss.detach(), torch.autograd.grad(loss.sum(), logits)[0]


@pytest.mark.parametrize(
    ("logits", "target", "epsilon", "expected"),
    [
        pytest.param([0.0] * 4, 3, 1.0, math.log(4) + 3 / 4, id="p 1/4: ln 4 and 3/4"),
        pytest.param([0.0] * 4, 3, -1.0, math.log(4) - 3 / 4, id="without the first power"),
        pytest.param([LN_9, 0.0], 0, 2.0, math.log(10 / 9) + 0.2, id="p 9/10: and twice 1/10"),
        pytest.param([1e4, -1e4], 0, 2.0, 0.0, id="surely right"),
        pytest.param([1e4, -1e4], 1, 2.0, 2e4 + 2, id="surely wrong"),
        pytest.param([1e4, -1e4], 1, -1.0, 2e4 - 1, id="surely wrong, less"),
        pytest.param([3.0], 0, 1.0, 0.0, id="one column: p is 1"),
    ],
)
def test_values_worked_by_hand(logits, target, epsilon, expected):
    row, index = torch.tensor([logits], dtype=torch.float64), torch.tensor([target])
    assert poly1_loss(row, index, epsilon=epsilon).item() == pytest.approx(expected)


def test_label_smoothing_worked_by_hand():
    """Probabilities 9/10 and 1/10, shares 9/10 and 1/10 of e = 0.2: ``1 - p`` is 0.1 and 0.9."""
    loss = poly1_loss(torch.tensor([[LN_9, 0.0]]), torch.tensor([0]), label_smoothing=0.2)
    expected = 0.9 * (math.log(10 / 9) + 0.1) + 0.1 * (math.log(10) + 0.9)
    assert loss.item() == pytest.approx(expected)


def test_values_and_gradients_of_other_implementations():
    """Those of polyloss-pytorch, and of optax for one-hot labels, in float64."""
    assert_gives(VALUES, GRADIENTS, poly1_loss, WITH_BACKGROUND)


def reference(row, true, epsilon):
    """``-ln p_t + epsilon (1 - p_t)`` on Python floats, as the paper writes it."""
    powers = [math.exp(x) for x in row]
    p = powers[true] / sum(powers)
    return -math.log(p) + epsilon * (1 - p)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_grid_matches_the_paper(epsilon):
    grid = list(itertools.product(itertools.product([-3.0, 0.0, 0.1, 2.0], repeat=3), range(3)))
    logits = torch.tensor([row for row, _ in grid], dtype=torch.float64)
    target = torch.tensor([true for _, true in grid])
    loss, gradient = value_and_gradient(logits, target, epsilon=epsilon)
    expected = torch.tensor([reference(*each, epsilon) for each in grid], dtype=torch.float64)
    assert_close(loss, expected, rtol=1e-9, atol=1e-14)
    p = logits.softmax(-1)
    true = torch.nn.functional.one_hot(target, 3)
    expected = (1 + epsilon * (p * true).sum(-1, keepdim=True)) * (p - true)
    assert_close(gradient, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_soft_labels_are_linear_as_in_optax(epsilon):
    share = torch.rand(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    share = share / share.sum(-1, keepdim=True)
    x = WITH_BACKGROUND
    expected = (share * (-x.log_softmax(-1) + epsilon * (1 - x.softmax(-1)))).sum(-1)
    assert_close(poly1_loss(x, share, epsilon=epsilon), expected)


def test_at_epsilon_0_it_is_cross_entropy():
    for target in (LABELS, WITH_BACKGROUND.softmax(-1)):
        options = {"label_smoothing": 0.1, "class_weight": [1.0, 2.0, 0.5, 3.0]}
        assert_close(
            poly1_loss(WITH_BACKGROUND, target, epsilon=0.0, **options),
            softmax_cross_entropy(WITH_BACKGROUND, target, **options),
        )


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_a_right_answer_keeps_its_digits_in_float32(epsilon, plain):
    """At epsilon -1 what is left of two numbers near 1e-5 is the square of that."""
    leads = [-0.5, 0.5, 1.3, 1.5, 4.0, 8.0, 12.0, 20.0, 40.0]
    logits, target = torch.tensor([[x, 0.0] for x in leads]), torch.zeros(9).long()
    loss, gradient = value_and_gradient(logits, target, epsilon=epsilon)
    if plain and epsilon < 0:  # above, the logarithm of the softmax has no more digits
        with plain_formulas():
            loss, gradient = value_and_gradient(logits, target, epsilon=epsilon)
    with mpmath.workdps(60):
        for x, found, slope in zip(leads, loss.tolist(), gradient[:, 1].tolist(), strict=True):
            rest = 1 / (1 + mpmath.exp(mpmath.mpf(x)))
            expected = -mpmath.log1p(-rest) + epsilon * rest
            assert found == pytest.approx(float(expected), rel=5e-6)
            assert slope == pytest.approx(float((1 + epsilon * (1 - rest)) * rest), rel=5e-6)


@pytest.mark.parametrize(("background_index", "order"), [(-1, [0, 1, 2, 3]), (0, [3, 0, 1, 2])])
def test_background_index_only_says_where_the_columns_are(background_index, order):
    loss = poly1_loss(WITH_BACKGROUND[:, order], LABELS, background_index=background_index)
    assert_close(loss, torch.tensor(VALUES, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("epsilon", [-1.5, math.nan])
def test_rejects_an_epsilon_that_makes_the_loss_negative(epsilon):
    with pytest.raises(ValueError, match=f"epsilon must be at least -1, got {epsilon}"):
        poly1_loss(WITH_BACKGROUND, LABELS, epsilon=epsilon)
