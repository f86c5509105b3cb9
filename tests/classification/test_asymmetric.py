"""Asymmetric loss: numbers by hand and of other code, the paper's formula, its limits."""

import itertools
import math
from contextlib import nullcontext

import pytest
import torch
from labelled import LABELS, LOGITS, QUALITY, assert_follows, assert_gives, constant, ln, sigmoid
from torch.testing import assert_close

from detloss.classification import asymmetric_loss, sigmoid_focal_loss
from detloss.kernels import plain_formulas

VALUES = [
    [0.015130, 0.000568, 0.091253],
    [0.000000, 0.024515, 0.084249],
    [0.032794, 0.043243, 0.009368],
]
GRADIENTS = {
    False: [
        [-0.027536, 0.002618, 0.208874],
        [0.000000, 0.073117, -0.133920],
        [0.093047, 0.116545, 0.032178],
    ],
    True: [
        [-0.014209, 0.000578, 0.059030],
        [0.000000, 0.018639, -0.072329],
        [0.024176, 0.030888, 0.007788],
    ],
}
LN_3 = math.log(3)  # the logit of 3/4
YES, NO = 0, 1


def value_and_gradient(logits, target, **options):
    logits = torch.as_tensor(logits).reshape(-1, 1).requires_grad_()
    loss = asymmetric_loss(logits, torch.full((len(logits),), target), **options)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    return loss.detach().flatten(), gradient.flatten()


@pytest.mark.parametrize(
    ("logit", "target", "options", "expected"),
    [
        pytest.param(LN_3, YES, {}, math.log(4 / 3), id="yes: cross-entropy"),
        pytest.param(LN_3, YES, {"gamma_positive": 2.0}, math.log(4 / 3) / 16, id="(1/4)^2 of it"),
        pytest.param(LN_3, NO, {}, -(0.7**4) * math.log(0.3), id="no: p 3/4 less 0.05"),
        pytest.param(
            LN_3, NO, {"gamma_negative": 0.0, "clip": 0.5}, math.log(4 / 3), id="less 1/2, no power"
        ),
        pytest.param(LN_3, NO, {"clip": 0.0}, 0.75**4 * math.log(4), id="no clip: focal loss"),
        pytest.param(LN_3, NO, {"clip": 0.75}, 0.0, id="all of p is clipped"),
        pytest.param(-LN_3, NO, {"clip": 0.5}, 0.0, id="and more than p"),
        pytest.param(1e4, NO, {}, -(0.95**4) * math.log(0.05), id="surely wrong: below -ln clip"),
        pytest.param(-1e4, YES, {}, 1e4, id="a surely wrong yes costs its logit"),
        pytest.param(1e4, NO, {"clip": 1.0}, 0.0, id="clip 1: no answer no costs"),
    ],
)
def test_values_worked_by_hand(logit, target, options, expected):
    loss, _ = value_and_gradient(torch.tensor([logit], dtype=torch.float64), target, **options)
    assert loss.item() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("detach", [False, True])
def test_values_and_gradients_of_the_originals(detach):
    """Of the authors' two classes, whose positives have a gamma of 1, and of timm."""
    assert_gives(VALUES, GRADIENTS[detach], asymmetric_loss, gamma_positive=1.0, detach=detach)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("clip", [0.0, 0.05, 0.4])
@pytest.mark.parametrize(
    ("gamma_positive", "gamma_negative"), [*itertools.product([0.0, 1.5], [0.0, 0.5, 4.0])]
)
def test_agrees_with_the_formula(gamma_positive, gamma_negative, clip, detach):
    def slow(x, says_yes, row):
        p = sigmoid(x)
        if says_yes:
            return -((constant(1 - p) if detach else 1 - p) ** gamma_positive) * ln(p)
        if p <= clip:
            return 0 * x
        weight = constant(p) - clip if detach else p - clip
        return -(weight**gamma_negative) * ln(1 - (p - clip))

    options = {"gamma_positive": gamma_positive, "gamma_negative": gamma_negative}
    assert_follows(slow, asymmetric_loss, LOGITS, **options, clip=clip, detach=detach)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_with_one_gamma_and_no_clip_it_is_focal_loss(gamma, label_smoothing):
    options = {"quality": QUALITY, "label_smoothing": label_smoothing}
    assert_close(
        asymmetric_loss(
            LOGITS, LABELS, gamma_positive=gamma, gamma_negative=gamma, clip=0.0, **options
        ),
        sigmoid_focal_loss(LOGITS, LABELS, gamma=gamma, alpha=None, **options),
    )


@pytest.mark.parametrize("quality", [0.0, 0.3, 1.0])
def test_linear_in_the_label(quality):
    logits, index = LOGITS.flatten()[:, None], torch.zeros(9).long()
    yes, no = asymmetric_loss(logits, index), asymmetric_loss(logits, index + 1)
    loss = asymmetric_loss(logits, index, quality=torch.full((9,), quality, dtype=torch.float64))
    assert_close(loss, quality * yes + (1 - quality) * no)
    assert_close(asymmetric_loss(logits, torch.full_like(logits, quality)), loss)


@pytest.mark.parametrize("way", [nullcontext, plain_formulas])
@pytest.mark.parametrize("gamma", [0.0, 0.25, 1.0, 4.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_easy_no_costs_and_learns_exactly_nothing(dtype, gamma, way):
    easy = torch.tensor([-1e4, -50.0, -10.0, math.log(0.049 / 0.951)], dtype=dtype)
    with way():
        loss, gradient = value_and_gradient(easy, NO, gamma_negative=gamma)
    assert torch.equal(loss, torch.zeros_like(loss))
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_a_no_that_may_be_a_forgotten_yes_pulls_ever_less():
    _, gradient = value_and_gradient(torch.tensor([3.0, 6.0, 12.0, 40.0]), NO)
    assert (gradient.diff() < 0).all()
    assert gradient[-1] < 1e-15


@pytest.mark.parametrize("logit", [-15.0, -20.0, -1e4])
def test_a_surely_wrong_yes_pulls_where_the_original_does_not(logit):
    """It takes the logarithm of a p of at least 1e-8, which has no gradient below."""
    _, gradient = value_and_gradient(torch.tensor([logit]), YES)
    assert gradient.item() == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize("way", [nullcontext, plain_formulas])
@pytest.mark.parametrize("clip", [1e-30, 1e-3, 0.05, 0.5])
def test_keeps_its_digits_in_float32(clip, way):
    """``1 - p_m`` of a p that is all but 1 is ``(1 - p) + clip``."""
    logits = torch.tensor([-2.0, 0.1, 1.0, 8.0, 20.0, 60.0])
    with way():
        found = value_and_gradient(logits, NO, clip=clip)
    wide = value_and_gradient(logits.double(), NO, clip=clip)
    for one, other in zip(found, wide, strict=True):
        assert_close(one.double(), other, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma_positive": -1}, "gamma_positive must be at least 0, got -1"),
        ({"gamma_negative": -1}, "gamma_negative must be at least 0, got -1"),
        ({"clip": 1.5}, r"clip must be in \[0, 1\], got 1.5"),
    ],
)
def test_rejects_options(options, message):
    with pytest.raises(ValueError, match=message):
        asymmetric_loss(LOGITS, LABELS, **options)
