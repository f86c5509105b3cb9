"""Quality focal loss against a formula on Python floats, published values, and its limits."""

import math

import pytest
import torch
from labelled import LABELS, LOGITS, QUALITY, assert_gives
from torch.testing import assert_close

from detloss.classification import quality_focal_loss, sigmoid_cross_entropy, sigmoid_focal_loss

VALUES = [
    [0.003440, 0.022658, 0.377412],
    [0.000109, 0.173287, 0.188276],
    [0.205158, 0.241291, 0.100393],
]
GRADIENTS = [
    [0.009468, 0.052581, 0.526152],
    [0.000315, 0.298287, 0.251846],
    [0.339595, 0.383467, 0.192408],
]


def slow(logit, label, beta):
    """|y - p|^beta times the cross-entropy, as the paper writes it."""
    p = 1 / (1 + math.exp(-logit))
    return abs(label - p) ** beta * -(label * math.log(p) + (1 - label) * math.log(1 - p))


@pytest.mark.parametrize(
    ("logit", "label", "expected"),
    [
        pytest.param(0.0, 0.5, 0.0, id="the label is met"),
        pytest.param(0.0, 1.0, 0.25 * math.log(2), id="1/2 off: a quarter of ln 2"),
        pytest.param(0.0, 0.0, 0.25 * math.log(2), id="the same for no"),
        pytest.param(
            math.log(3), 0.25, 0.25 * (0.25 * math.log(4 / 3) + 0.75 * math.log(4)), id="p 3/4"
        ),
    ],
)
def test_values_worked_by_hand(logit, label, expected):
    loss = quality_focal_loss(
        torch.tensor([[logit]]), torch.tensor([0]), quality=torch.tensor([label])
    )
    assert loss.item() == pytest.approx(expected, abs=1e-7)
    dense = quality_focal_loss(torch.tensor([[logit]]), torch.tensor([[label]]))
    assert dense.item() == pytest.approx(expected, abs=1e-7)


def test_values_and_gradients_of_the_original():
    """Those of mmdetection's quality_focal_loss in float64."""
    assert_gives(VALUES, GRADIENTS, quality_focal_loss, quality=QUALITY)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0, 3.5])
def test_agrees_with_the_formula(beta):
    loss = quality_focal_loss(LOGITS, LABELS, quality=QUALITY, beta=beta)
    for row in range(3):
        for column in range(3):
            label = QUALITY[row].item() if LABELS[row] == column else 0.0
            expected = slow(LOGITS[row, column].item(), label, beta)
            assert loss[row, column].item() == pytest.approx(expected, rel=1e-9)


def test_without_modulation_it_is_the_cross_entropy():
    quality = QUALITY.nan_to_num(0)
    assert_close(
        quality_focal_loss(LOGITS, LABELS, quality=quality, beta=0.0),
        sigmoid_cross_entropy(LOGITS, LABELS, quality=quality),
    )


def test_hard_labels_are_focal_loss_without_alpha():
    assert_close(
        quality_focal_loss(LOGITS, LABELS, beta=1.5),
        sigmoid_focal_loss(LOGITS, LABELS, alpha=None, gamma=1.5),
    )


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_a_label_that_is_met_has_a_finite_gradient(beta):
    logits = torch.zeros(1, 1, requires_grad=True)
    quality_focal_loss(logits, torch.tensor([[0.5]]), beta=beta).sum().backward()
    assert logits.grad.isfinite().all()


def test_rejects_a_negative_beta():
    with pytest.raises(ValueError, match="beta must be at least 0, got -1"):
        quality_focal_loss(LOGITS, LABELS, beta=-1)
