"""IoU-aware cross-entropy: numbers by hand and of other code, the paper's formula, its limits."""

import math

import pytest
import torch
from labelled import LABELS, LOGITS, QUALITY, assert_follows, assert_gives, constant, ln, sigmoid
from torch.testing import assert_close

from detloss.classification import ia_bce_loss, sigmoid_cross_entropy, sigmoid_focal_loss

VALUES = [
    [0.487975, 0.022658, 0.377412],
    [0.000109, 0.173287, 0.938436],
    [0.205158, 0.241291, 0.100393],
]
GRADIENTS = [
    [0.061321, 0.052581, 0.526152],
    [0.000315, 0.298287, 0.356233],
    [0.339595, 0.383467, 0.192408],
]
LN_3 = math.log(3)  # the logit of 3/4


@pytest.mark.parametrize(
    ("logit", "quality", "alpha", "expected", "gradient"),
    [
        pytest.param(0.0, 0.5, 0.25, math.log(2), 0.0, id="p and q 1/2: so is the label"),
        pytest.param(
            LN_3, 1 / 3, 0.5, math.log(16 / 3) / 2, 0.25, id="label sqrt(3/4 1/3) = 1/2 at p 3/4"
        ),
        pytest.param(
            LN_3,
            0.0,
            0.25,
            0.01 * math.log(4 / 3) + 0.99 * math.log(4),
            0.74,
            id="quality 0: label 0.01",
        ),
        pytest.param(
            LN_3, 1.0, 1.0, 0.75 * math.log(4 / 3) + math.log(4) / 4, 0.0, id="alpha 1: label p"
        ),
        pytest.param(
            LN_3, 0.0, 1.0, 0.75 * math.log(4 / 3) + math.log(4) / 4, 0.0, id="whatever q"
        ),
        pytest.param(-1e4, 1.0, 0.25, 100.0, -0.01, id="surely wrong: label 0.01"),
        pytest.param(1e4, 0.5, 0.0, 5e3, 0.5, id="surely, of a box of 1/2"),
    ],
)
def test_positives_worked_by_hand(logit, quality, alpha, expected, gradient):
    logits = torch.tensor([[logit]], dtype=torch.float64, requires_grad=True)
    given = torch.tensor([quality], dtype=torch.float64)
    loss = ia_bce_loss(logits, torch.tensor([0]), quality=given, alpha=alpha)
    loss.sum().backward()
    assert loss.item() == pytest.approx(expected)
    assert logits.grad.item() == pytest.approx(gradient, abs=1e-12)


def test_a_hard_positive_is_one_of_quality_1():
    ones = torch.ones(3)
    assert_close(ia_bce_loss(LOGITS, LABELS), ia_bce_loss(LOGITS, LABELS, quality=ones))


def test_a_background_is_focal_loss():
    logits, background = LOGITS.clone().requires_grad_(), torch.full((3,), 3)
    for gamma in (0.0, 1.0, 2.0):
        found = ia_bce_loss(logits, background, gamma=gamma)
        expected = sigmoid_focal_loss(logits, background, alpha=None, gamma=gamma)
        assert_close(found, expected)
        assert_close(*(torch.autograd.grad(loss.sum(), logits) for loss in (found, expected)))


def test_values_and_gradients_of_the_originals():
    """Those of AlignDETR, LW-DETR and transformers in float64."""
    assert_gives(VALUES, GRADIENTS, ia_bce_loss, quality=QUALITY)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_agrees_with_the_formula(alpha, gamma):
    def slow(x, says_yes, row):
        p = sigmoid(x)
        if says_yes:
            t = max(constant(p) ** alpha * QUALITY[row].item() ** (1 - alpha), 0.01)
            return -t * ln(p) - (1 - t) * ln(1 - p)
        return -(p**gamma) * ln(1 - p)

    assert_follows(slow, ia_bce_loss, LOGITS, quality=QUALITY, alpha=alpha, gamma=gamma)


def test_at_alpha_and_gamma_0_it_is_cross_entropy_with_the_quality_as_label():
    assert_close(
        ia_bce_loss(LOGITS, LABELS, quality=QUALITY, alpha=0.0, gamma=0.0),
        sigmoid_cross_entropy(LOGITS, LABELS, quality=QUALITY),
    )


def test_a_dense_target_is_positive_where_it_is_not_0():
    dense = torch.zeros_like(LOGITS)
    dense[0, 0], dense[1, 2] = QUALITY[0], QUALITY[1]
    assert_close(ia_bce_loss(LOGITS, dense), ia_bce_loss(LOGITS, LABELS, quality=QUALITY))


@pytest.mark.parametrize("logit", [15.0, 17.0, 40.0, -90.0])
def test_saturated_logits_where_the_originals_have_a_nan(logit):
    """They take the logarithms of p and ``1 - p``: in float32 nan at 17 and -90, fine at 15."""
    logits = torch.tensor([[logit]], requires_grad=True)
    loss = ia_bce_loss(logits, torch.tensor([0]))
    loss.sum().backward()
    p, rest = 1 / (1 + math.exp(-logit)), 1 / (1 + math.exp(logit))
    log_p = -math.log1p(math.exp(-logit))
    t, rest_t = max(p**0.25, 0.01), -math.expm1(max(0.25 * log_p, math.log(0.01)))
    expected = -t * log_p + rest_t * math.log1p(math.exp(logit))
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert logits.grad.item() == pytest.approx(rest_t - rest if logit > 0 else p - t, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, r"alpha must be in \[0, 1\], got 1.5"),
        ({"gamma": -1}, "gamma must be at least 0, got -1"),
    ],
)
def test_rejects_options(options, message):
    with pytest.raises(ValueError, match=message):
        ia_bce_loss(LOGITS, LABELS, **options)
