"""Gaussian focal loss against a formula on Python floats, published values, and its limits."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from detloss.classification import gaussian_focal_loss, sigmoid_focal_loss
from detloss.kernels import plain_formulas

LOGITS = torch.tensor([[2, -1, 0.5], [-3, 0, 1], [0.1, 0.2, -0.3]], dtype=torch.float64)
HEAT = torch.tensor([[1, 0.5, 0], [0, 0.25, 1], [0.5, 0.25, 0]], dtype=torch.float64)
VALUES = [
    [0.001804, 0.001416, 0.377412],
    [0.000109, 0.054829, 0.022658],
    [0.012822, 0.076346, 0.100393],
]
GRADIENTS = [
    [-0.004871, 0.003286, 0.526152],
    [0.000315, 0.094380, -0.052581],
    [0.021225, 0.121331, 0.192408],
]


def slow(logit, heat, alpha, beta):
    """Equation 1 of both papers."""
    p = 1 / (1 + math.exp(-logit))
    if heat == 1:
        return -((1 - p) ** alpha) * math.log(p)
    return -((1 - heat) ** beta) * p**alpha * math.log(1 - p)


@pytest.mark.parametrize(
    ("heat", "expected"),
    [
        pytest.param(1.0, 0.25 * math.log(2), id="a centre: (1/2)^2 ln 2"),
        pytest.param(0.5, 0.25 * math.log(2) / 16, id="halfway: (1/2)^4 of a far cell"),
        pytest.param(0.0, 0.25 * math.log(2), id="a far cell: (1/2)^2 ln 2"),
    ],
)
def test_at_logit_0_by_hand(heat, expected):
    loss = gaussian_focal_loss(torch.zeros(1, 1), torch.tensor([[heat]]))
    assert loss.item() == pytest.approx(expected)


def test_values_and_gradients_of_an_original():
    """mmdetection's, in float64, on the sigmoids of these logits."""
    logits = LOGITS.clone().requires_grad_()
    loss = gaussian_focal_loss(logits, HEAT)
    assert_close(loss, torch.tensor(VALUES, dtype=torch.float64), atol=1e-6, rtol=0)
    loss.sum().backward()
    assert_close(logits.grad, torch.tensor(GRADIENTS, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("alpha", "beta"), [(2.0, 4.0), (0.0, 0.0), (0.5, 1.5), (3.0, 0.5), (1.0, 2.0)]
)
def test_agrees_with_the_formula(alpha, beta):
    loss = gaussian_focal_loss(LOGITS, HEAT, alpha=alpha, beta=beta)
    expected = [
        [slow(x, y, alpha, beta) for x, y in zip(*rows, strict=True)]
        for rows in zip(LOGITS.tolist(), HEAT.tolist(), strict=True)
    ]
    assert_close(loss, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 4.0), (0.0, 0.0), (0.5, 0.25), (3.0, 1.0)])
def test_the_gradient_of_a_heat_map_is_that_of_its_value(alpha, beta):
    logits = LOGITS.clone().requires_grad_()
    options = {"alpha": alpha, "beta": beta}
    assert gradcheck(lambda x: gaussian_focal_loss(x, HEAT, **options), logits)
    (found,) = torch.autograd.grad(gaussian_focal_loss(logits, HEAT, **options).sum(), logits)
    with plain_formulas():
        plain = gaussian_focal_loss(logits, HEAT, **options)
    assert_close(found, torch.autograd.grad(plain.sum(), logits)[0], rtol=1e-12, atol=1e-15)


def test_class_indices_are_focal_loss_without_alpha():
    labels = torch.tensor([0, 2, 3])  # the last row is background
    loss = gaussian_focal_loss(LOGITS, labels, alpha=1.5)
    assert_close(loss, sigmoid_focal_loss(LOGITS, labels, alpha=None, gamma=1.5))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_surely_wrong_answer_costs_its_logit_and_pulls_with_full_force(dtype):
    """Where p is clamped, as in the papers' code, nothing would pull beyond logits of 9.2."""
    logits = torch.tensor([[-1e4, 1e4, -50.0, 50.0]], dtype=dtype, requires_grad=True)
    heat = torch.tensor([[1.0, 0, 1, 0]], dtype=dtype)
    loss = gaussian_focal_loss(logits, heat)
    assert_close(loss, logits.detach().abs())
    loss.sum().backward()
    assert_close(logits.grad, torch.tensor([[-1.0, 1, -1, 1]], dtype=dtype))


def test_only_a_heat_of_exactly_1_is_a_yes():
    heat = torch.tensor([[1.0, torch.nextafter(torch.tensor(1.0), torch.tensor(0.0)).item()]])
    logits = torch.full((1, 2), -2.0, requires_grad=True)
    gaussian_focal_loss(logits, heat).sum().backward()
    assert logits.grad[0, 0] < -0.5
    assert 0 < logits.grad[0, 1] < 1e-20


def test_a_heat_that_is_learned_itself_has_a_gradient():
    """Finite at a centre, too, for a beta below 1."""
    heat = HEAT.clone().requires_grad_()
    gaussian_focal_loss(LOGITS, heat, beta=0.5).sum().backward()
    assert heat.grad.isfinite().all()
    assert ((heat.grad == 0) == (HEAT == 1)).all()


@pytest.mark.parametrize("option", ["alpha", "beta"])
def test_rejects_a_negative_exponent(option):
    with pytest.raises(ValueError, match=f"{option} must be at least 0, got -1"):
        gaussian_focal_loss(LOGITS, HEAT, **{option: -1})
