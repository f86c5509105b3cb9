"""Focal star loss: numbers by hand and of other code, the paper's formula, its limits."""

import itertools
import math
from contextlib import nullcontext

import pytest
import torch
from labelled import LABELS, LOGITS, QUALITY, assert_follows, assert_gives, ln, sigmoid
from torch.testing import assert_close

from detloss.classification import balanced_cross_entropy, focal_star_loss
from detloss.kernels import plain_formulas

VALUES = [
    [0.003358, 0.024294, 0.346574],
    [0.000456, 0.156631, 0.024294],
    [0.185550, 0.218744, 0.091950],
]
GRADIENTS = [
    [-0.006693, 0.047426, 0.500000],
    [0.000911, 0.268941, -0.047426],
    [0.310026, 0.354344, 0.167982],
]


@pytest.mark.parametrize(
    ("logit", "target", "options", "expected", "gradient"),
    [
        pytest.param(
            0.5, 1, {}, math.log(2) / 2, 0.5, id="no where gamma x = beta: s 1/2, halved by gamma"
        ),
        pytest.param(-0.5, 0, {}, math.log(2) / 2, -0.5, id="yes at the other side"),
        pytest.param(
            math.log(3) / 4,
            1,
            {"gamma": 4.0, "beta": 0.0},
            math.log(4) / 4,
            0.75,
            id="gamma 4: p 3/4",
        ),
        pytest.param(0.5, 0, {"alpha": 0.25}, math.log1p(math.exp(-2)) / 8, None, id="alpha"),
        pytest.param(1e4, 1, {}, 1e4 - 0.5, 1.0, id="surely wrong: less the shift"),
        pytest.param(-1e4, 1, {}, 0.0, 0.0, id="surely right"),
        pytest.param(1e300, 1, {"gamma": 1e9}, 1e300, 1.0, id="gamma x would overflow"),
    ],
)
def test_values_worked_by_hand(logit, target, options, expected, gradient):
    logits = torch.tensor([[logit]], dtype=torch.float64, requires_grad=True)
    loss = focal_star_loss(logits, torch.tensor([target]), **options)
    loss.sum().backward()
    assert loss.item() == pytest.approx(expected)
    if gradient is not None:
        assert logits.grad.item() == pytest.approx(gradient)


def test_values_and_gradients_of_another_implementation():
    """That of fvcore at beta 0; its logits are shifted here as the paper's beta shifts them."""
    assert_gives(VALUES, GRADIENTS, focal_star_loss)


@pytest.mark.parametrize(
    ("gamma", "beta"), [*itertools.product([0.25, 1.0, 2.0, 4.0], [0.0, 1.0, -2.0])]
)
def test_agrees_with_the_formula(gamma, beta):
    def slow(x, says_yes, row):
        return -ln(sigmoid(gamma * (x if says_yes else -x) + beta)) / gamma

    assert_follows(slow, focal_star_loss, LOGITS, gamma=gamma, beta=beta)


@pytest.mark.parametrize("alpha", [None, 0.25, [0.1, 0.5, 1.0]])
def test_without_steepness_and_shift_it_is_cross_entropy(alpha):
    options = {"quality": QUALITY, "alpha": alpha, "label_smoothing": 0.1}
    assert_close(
        focal_star_loss(LOGITS, LABELS, gamma=1.0, beta=0.0, **options),
        balanced_cross_entropy(LOGITS, LABELS, **options),
    )


@pytest.mark.parametrize("way", [nullcontext, plain_formulas])
@pytest.mark.parametrize("beta", [-100.0, 0.0, 1.0, 100.0])
@pytest.mark.parametrize("gamma", [1e-3, 0.25, 4.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_and_exact_far_out(dtype, gamma, beta, way):
    sizes = torch.tensor([0.0, 1.0, 20.0, 79.0, 81.0, 200.0, 1e4, 1e38], dtype=dtype)
    logits = torch.cat([sizes, -sizes])[:, None].requires_grad_()
    with way():
        loss = focal_star_loss(logits, torch.ones(16).long(), gamma=gamma, beta=beta)
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
    for x, found, slope in zip(logits, loss, gradient, strict=True):
        z = gamma * x.item() - beta
        expected = (z if z > 700 else math.log1p(math.exp(z))) / gamma
        rounding = 4 * torch.finfo(dtype).eps * max(gamma * abs(x.item()), abs(beta), 1)
        assert found.item() == pytest.approx(expected, rel=rounding if z < 0 else 1e-6, abs=1e-37)
        assert slope.item() == pytest.approx(
            1 if z > 700 else math.exp(z) / (1 + math.exp(z)), rel=max(rounding, 1e-6), abs=1e-37
        )


@pytest.mark.parametrize("gamma", [0.0, -1.0, math.nan])
def test_rejects_a_gamma_that_is_not_positive(gamma):
    with pytest.raises(ValueError, match=f"gamma must be greater than 0, got {gamma}"):
        focal_star_loss(LOGITS, LABELS, gamma=gamma)
