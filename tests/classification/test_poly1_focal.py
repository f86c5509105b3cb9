"""Poly-1 focal loss: numbers by hand and of other code, the paper's formula, its limits."""

import itertools
import math

import mpmath
import pytest
import torch
from labelled import LABELS, LOGITS, QUALITY, assert_follows, assert_gives, ln, sigmoid
from torch.testing import assert_close

import detloss
from detloss.classification import Poly1FocalLoss, poly1_focal_loss, sigmoid_focal_loss
from detloss.kernels import plain_formulas

EPSILONS = [-1.0, -0.5, 0.0, 1.0]
LN_3 = math.log(3)  # the logit of 3/4
ORIGINALS = {
    # epsilon, alpha, gamma and convention: values, gradients
    (-1.0, 0.25, 2.0, "paper"): (
        [
            [0.000027, 0.002404, 0.102177],
            [0.000002, 0.036215, 0.000801],
            [0.045354, 0.056300, 0.017494],
        ],
        [
            [-0.000099, 0.007439, 0.189743],
            [0.000008, 0.083090, -0.002480],
            [0.100056, 0.119236, 0.044696],
        ],
    ),
    (-1.0, 0.25, 2.0, "polyloss_pytorch"): (
        [
            [-0.001243, -0.002459, 0.041883],
            [-0.000025, 0.004965, -0.013788],
            [0.009183, 0.014744, -0.001773],
        ],
        [
            [0.003258, -0.003227, 0.121453],
            [-0.000069, 0.036215, 0.029517],
            [0.048509, 0.063114, 0.011493],
        ],
    ),
    (1.0, 0.25, 2.0, "polyloss_pytorch"): (
        [
            [0.002145, 0.036446, 0.524234],
            [0.000189, 0.254965, 0.025117],
            [0.298555, 0.347193, 0.152363],
        ],
        [
            [-0.005693, 0.082098, 0.667774],
            [0.000541, 0.411215, -0.055808],
            [0.460882, 0.512086, 0.277120],
        ],
    ),
    (1.0, None, 0.0, "paper"): (
        [
            [0.246131, 0.582203, 1.596536],
            [0.096013, 1.193147, 0.582203],
            [1.269376, 1.347973, 0.979913],
        ],
        [
            [-0.224197, 0.465553, 0.857463],
            [0.092603, 0.750000, -0.465553],
            [0.774355, 0.797351, 0.670016],
        ],
    ),
}


@pytest.mark.parametrize(
    ("logit", "target", "options", "expected"),
    [
        pytest.param(
            0.0, 1, {"alpha": None}, math.log(2) / 4 + 1 / 8, id="w 1/2: a quarter of ln 2, 1/8"
        ),
        pytest.param(0.0, 1, {}, (math.log(2) / 4 + 1 / 8) * 3 / 4, id="alpha on both, no: 3/4"),
        pytest.param(0.0, 0, {}, (math.log(2) / 4 + 1 / 8) / 4, id="yes: 1/4"),
        pytest.param(
            0.0,
            0,
            {"convention": "polyloss_pytorch"},
            math.log(2) / 16 + 1 / 8,
            id="alpha on focal loss alone",
        ),
        pytest.param(
            LN_3,
            0,
            {"epsilon": -1.0, "gamma": 0.0, "alpha": None},
            math.log(4 / 3) - 1 / 4,
            id="yes at p 3/4: w 1/4, without the first power",
        ),
        pytest.param(1e4, 1, {"alpha": None, "epsilon": -1.0}, 1e4 - 1, id="surely wrong"),
        pytest.param(-1e4, 1, {}, 0.0, id="surely right"),
    ],
)
def test_values_worked_by_hand(logit, target, options, expected):
    logits = torch.tensor([[logit]], dtype=torch.float64)
    loss = poly1_focal_loss(logits, torch.tensor([target]), **options)
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("given", ORIGINALS, ids=str)
def test_values_and_gradients_of_the_originals(given):
    """Of polyloss-pytorch, and of code that weighs both terms, in float64."""
    options = dict(zip(("epsilon", "alpha", "gamma", "convention"), given, strict=True))
    assert_gives(*ORIGINALS[given], poly1_focal_loss, **options)


@pytest.mark.parametrize("convention", ["paper", "polyloss_pytorch"])
@pytest.mark.parametrize("alpha", [None, 0.25, 1.0])
@pytest.mark.parametrize(("epsilon", "gamma"), [*itertools.product(EPSILONS, [0.0, 0.5, 2.0])])
def test_agrees_with_the_formula(epsilon, gamma, alpha, convention):
    def slow(x, says_yes, row):
        p_t = sigmoid(x) if says_yes else 1 - sigmoid(x)
        focal, first = -((1 - p_t) ** gamma) * ln(p_t), epsilon * (1 - p_t) ** (gamma + 1)
        if alpha is None:
            return focal + first
        alpha_t = alpha if says_yes else 1 - alpha
        return alpha_t * focal + (alpha_t if convention == "paper" else 1) * first

    options = {"epsilon": epsilon, "gamma": gamma, "alpha": alpha, "convention": convention}
    # half of the elements cancel to a tenth of a thousandth
    assert_follows(slow, poly1_focal_loss, LOGITS, **options)


@pytest.mark.parametrize("convention", ["paper", "polyloss_pytorch"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("quality", [None, QUALITY], ids=["hard", "soft"])
def test_at_epsilon_0_it_is_focal_loss(convention, label_smoothing, quality):
    options = {"label_smoothing": label_smoothing, "quality": quality, "alpha": 0.3, "gamma": 1.5}
    assert_close(
        poly1_focal_loss(LOGITS, LABELS, epsilon=0.0, convention=convention, **options),
        sigmoid_focal_loss(LOGITS, LABELS, **options),
    )


@pytest.mark.parametrize("options", [{}, {"convention": "polyloss_pytorch"}, {"epsilon": -1.0}])
@pytest.mark.parametrize("quality", [0.0, 0.3, 1.0])
def test_linear_in_the_label(quality, options):
    logits, index = LOGITS.flatten()[:, None], torch.zeros(9).long()
    yes = poly1_focal_loss(logits, index, **options)
    no = poly1_focal_loss(logits, index + 1, **options)
    given = torch.full((9,), quality, dtype=torch.float64)
    loss = poly1_focal_loss(logits, index, quality=given, **options)
    assert_close(loss, quality * yes + (1 - quality) * no)
    assert_close(poly1_focal_loss(logits, given[:, None], **options), loss)


def test_alpha_of_each_class():
    alpha = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    columns = [
        poly1_focal_loss(LOGITS, LABELS, alpha=a)[:, i] for i, a in enumerate(alpha.tolist())
    ]
    assert_close(poly1_focal_loss(LOGITS, LABELS, alpha=alpha), torch.stack(columns, dim=1))


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_a_right_answer_keeps_its_digits_in_float32(gamma, epsilon, plain):
    """At epsilon -1 what is left of two numbers near 1e-5 is the square of that."""
    sizes = [0.5, -0.5, -1.3, -1.5, -4.0, -8.0, -12.0, -20.0]
    logits = torch.tensor(sizes)[:, None].requires_grad_()
    with plain_formulas() if plain else torch.enable_grad():
        options = {"gamma": gamma, "epsilon": epsilon, "alpha": None}
        loss = poly1_focal_loss(logits, torch.ones(8).long(), **options)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)

    def exact(x):
        p = 1 / (1 + mpmath.exp(-x))
        return p**gamma * (-mpmath.log1p(-p) + epsilon * p)

    with mpmath.workdps(60):
        for x, found, slope in zip(
            sizes, loss[:, 0].tolist(), gradient[:, 0].tolist(), strict=True
        ):
            assert found == pytest.approx(float(exact(mpmath.mpf(x))), rel=5e-6)
            expected = mpmath.diff(exact, mpmath.mpf(x), h=mpmath.mpf(10) ** -20)
            assert slope == pytest.approx(float(expected), rel=5e-6)


def test_the_other_convention_may_push_a_right_answer_down():
    """Why alpha weighs both terms here."""
    logits = torch.tensor([[1.0]], requires_grad=True)
    options = {"epsilon": -1.0, "alpha": 0.25}
    for convention, sign in (("paper", -1), ("polyloss_pytorch", 1)):
        loss = poly1_focal_loss(logits, torch.tensor([0]), convention=convention, **options)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.sign() == sign
        assert loss.sign() == -sign


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epsilon": -1.5}, ValueError, "epsilon must be at least -1, got -1.5"),
        ({"gamma": -1}, ValueError, "gamma must be at least 0, got -1"),
        ({"alpha": 1.5}, ValueError, r"alpha must be in \[0, 1\], got 1.5"),
        (
            {"alpha": 1.5, "convention": "polyloss_pytorch"},
            ValueError,
            r"alpha must be in \[0, 1\], got 1.5",
        ),
        (
            {"alpha": [0.5] * 3, "convention": "polyloss_pytorch"},
            TypeError,
            "alpha must be a number by the convention 'polyloss_pytorch', got",
        ),
        ({"convention": "mine"}, ValueError, "convention must be one of paper, .*, got 'mine'"),
    ],
)
def test_rejects_options(options, error, message):
    with pytest.raises(error, match=message):
        poly1_focal_loss(LOGITS, LABELS, **options)


def test_rejects_when_it_is_built_what_does_not_go_together():
    with pytest.raises(TypeError, match="alpha must be a number"):
        Poly1FocalLoss(alpha=[0.5, 0.5], convention="polyloss_pytorch")
    options = {"alpha": [0.5, 0.5], "convention": "polyloss_pytorch"}
    with pytest.raises(detloss.ConfigError, match="classification.alpha: must be a number"):
        detloss.build_part("classification", {"type": "poly1_focal", **options})
    assert Poly1FocalLoss(alpha=None, convention="polyloss_pytorch").alpha is None
