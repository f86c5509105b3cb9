"""Varifocal loss against a formula on Python floats, published values, and its limits."""

import math

import pytest
import torch
from labelled import LABELS, LOGITS, QUALITY, assert_gives
from torch.testing import assert_close

from detloss.classification import sigmoid_cross_entropy, sigmoid_focal_loss, varifocal_loss

VALUES = [
    [0.421542, 0.016994, 0.283059],
    [0.000082, 0.129965, 0.303979],
    [0.153869, 0.180968, 0.075295],
]
GRADIENTS = {
    False: [
        [0.064638, 0.039436, 0.394614],
        [0.000236, 0.223715, 0.129318],
        [0.254696, 0.287600, 0.144306],
    ],
    True: [
        [0.064638, 0.014589, 0.180882],
        [0.000080, 0.093750, 0.129318],
        [0.108514, 0.124668, 0.057801],
    ],
}


def slow(logit, quality, alpha, gamma):
    """Equation 2; a quality of None is a class that is not the row's."""
    p = 1 / (1 + math.exp(-logit))
    if quality is None:
        return -alpha * p**gamma * math.log(1 - p)
    return -quality * (quality * math.log(p) + (1 - quality) * math.log(1 - p))


@pytest.mark.parametrize(
    ("quality", "expected"),
    [
        pytest.param(1.0, math.log(2), id="a perfect box: ln 2 at p 1/2"),
        pytest.param(0.5, 0.5 * math.log(2), id="counts half"),
        pytest.param(0.0, 0.0, id="a positive of quality 0 costs nothing"),
    ],
)
def test_positives_worked_by_hand(quality, expected):
    loss = varifocal_loss(torch.zeros(1, 2), torch.tensor([1]), quality=torch.tensor([quality]))
    assert loss[0].tolist() == pytest.approx([0.75 * 0.25 * math.log(2), expected])


@pytest.mark.parametrize("detach", [False, True])
def test_values_and_gradients_of_the_originals(detach):
    """Attached as in mmdetection, detached as in RT-DETR; both in float64."""
    assert_gives(VALUES, GRADIENTS[detach], varifocal_loss, quality=QUALITY, detach=detach)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.75, 2.0), (1.0, 0.0), (0.25, 1.5), (0.0, 2.0)])
def test_agrees_with_the_formula(alpha, gamma):
    loss = varifocal_loss(LOGITS, LABELS, quality=QUALITY, alpha=alpha, gamma=gamma)
    for row in range(3):
        for column in range(3):
            quality = QUALITY[row].item() if LABELS[row] == column else None
            expected = slow(LOGITS[row, column].item(), quality, alpha, gamma)
            assert loss[row, column].item() == pytest.approx(expected, rel=1e-9)


def test_a_dense_target_is_positive_where_it_is_not_0():
    quality = QUALITY.nan_to_num(0)
    dense = torch.zeros_like(LOGITS)
    dense[0, 0], dense[1, 2] = quality[0], quality[1]
    assert_close(varifocal_loss(LOGITS, dense), varifocal_loss(LOGITS, LABELS, quality=quality))


def test_a_hard_positive_is_the_cross_entropy_and_a_negative_focal_loss():
    loss = varifocal_loss(LOGITS, LABELS, alpha=0.75, gamma=2.0)
    yes = sigmoid_cross_entropy(LOGITS, LABELS)
    no = sigmoid_focal_loss(LOGITS, LABELS, alpha=0.25, gamma=2.0)
    is_yes = LABELS[:, None] == torch.arange(3)
    assert_close(loss, torch.where(is_yes, yes, no))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, r"alpha must be in \[0, 1\], got 1.5"),
        ({"gamma": -1}, "gamma must be at least 0, got -1"),
    ],
)
def test_rejects_options(options, message):
    with pytest.raises(ValueError, match=message):
        varifocal_loss(LOGITS, LABELS, **options)
