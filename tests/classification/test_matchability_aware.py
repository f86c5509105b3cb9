"""Matchability-aware loss: numbers by hand and of other code, the paper's formula, its limits."""

import math

import pytest
import torch
from labelled import (
    LABELS,
    LOGITS,
    QUALITY,
    assert_follows,
    assert_gives,
    constant,
    ln,
    sigmoid,
)
from torch.testing import assert_close

from detloss.classification import (
    matchability_aware_loss,
    sigmoid_cross_entropy,
    sigmoid_focal_loss,
    varifocal_loss,
)

VALUES = [
    [0.695845, 0.043691, 0.478365],
    [0.000502, 0.245065, 1.148945],
    [0.283151, 0.325406, 0.153895],
]
GRADIENTS = {
    True: [
        [0.165255, 0.037510, 0.305687],
        [0.000490, 0.176777, 0.566742],
        [0.199689, 0.224171, 0.118140],
    ],
    False: [
        [0.165255, 0.085421, 0.576591],
        [0.001207, 0.360575, 0.566742],
        [0.401443, 0.443901, 0.250746],
    ],
}


@pytest.mark.parametrize(
    ("logit", "quality", "gamma", "expected", "gradient"),
    [
        pytest.param(0.0, 1.0, 1.5, math.log(2), -0.5, id="a perfect box: cross-entropy"),
        pytest.param(0.0, 0.25, 1.5, math.log(2), 0.5 - 0.125, id="label 1/8: ln 2 at p 1/2"),
        pytest.param(
            math.log(3), 0.25, 0.5, math.log(16 / 3) / 2, 0.25, id="label 1/2, p 3/4: of both half"
        ),
        pytest.param(
            math.log(3), 0.0, 1.5, math.log(4), 0.75, id="quality 0: no without a power of p"
        ),
        pytest.param(math.log(3), None, 2.0, 9 / 16 * math.log(4), 9 / 16 * 0.75, id="background"),
    ],
)
def test_values_worked_by_hand(logit, quality, gamma, expected, gradient):
    logits = torch.tensor([[logit]], dtype=torch.float64, requires_grad=True)
    label = torch.tensor([0 if quality is not None else 1])
    given = torch.tensor([quality if quality is not None else math.nan])
    loss = matchability_aware_loss(logits, label, quality=given, gamma=gamma)
    loss.sum().backward()
    assert loss.item() == pytest.approx(expected)
    assert logits.grad.item() == pytest.approx(gradient)


@pytest.mark.parametrize("detach", [True, False])
def test_values_and_gradients_of_the_originals(detach):
    """Detached as in DEIM and in transformers' DEIMv2."""
    loss = matchability_aware_loss
    assert_gives(VALUES, GRADIENTS[detach], loss, quality=QUALITY, detach=detach)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.5, 2.0])
def test_agrees_with_the_formula(gamma, detach):
    def slow(x, says_yes, row):
        p = sigmoid(x)
        if says_yes:
            label = QUALITY[row].item() ** gamma
            return -label * ln(p) - (1 - label) * ln(1 - p)
        return -((constant(p) if detach else p) ** gamma) * ln(1 - p)

    options = {"quality": QUALITY, "gamma": gamma, "detach": detach}
    assert_follows(slow, matchability_aware_loss, LOGITS, **options)


def test_a_dense_target_is_positive_where_it_is_not_0():
    dense = torch.zeros_like(LOGITS)
    dense[0, 0], dense[1, 2] = QUALITY[0], QUALITY[1]
    assert_close(
        matchability_aware_loss(LOGITS, dense),
        matchability_aware_loss(LOGITS, LABELS, quality=QUALITY),
    )


def test_a_hard_positive_is_the_cross_entropy_and_a_negative_focal_loss():
    loss = matchability_aware_loss(LOGITS, LABELS, gamma=2.0)
    yes = sigmoid_cross_entropy(LOGITS, LABELS)
    no = sigmoid_focal_loss(LOGITS, LABELS, alpha=None, gamma=2.0)
    is_yes = LABELS[:, None] == torch.arange(3)
    assert_close(loss, torch.where(is_yes, yes, no))


def test_at_gamma_0_it_is_cross_entropy_whatever_the_quality():
    quality = torch.tensor([0.0, 0.3, 1.0])
    assert_close(
        matchability_aware_loss(LOGITS, LABELS, quality=quality, gamma=0.0),
        sigmoid_cross_entropy(LOGITS, LABELS),
    )


def test_a_poor_match_that_the_network_is_sure_of_costs_more_than_by_varifocal_loss():
    """The paper's reason: at quality 0.05 and p 0.95 that of varifocal loss is next to nothing."""
    sure = torch.tensor([[math.log(19)]]), torch.tensor([0])
    poor = torch.tensor([0.05])
    assert varifocal_loss(*sure, quality=poor) < 0.15
    assert matchability_aware_loss(*sure, quality=poor) > 2.9


def test_rejects_a_negative_gamma():
    with pytest.raises(ValueError, match="gamma must be at least 0, got -1"):
        matchability_aware_loss(LOGITS, LABELS, gamma=-1)
