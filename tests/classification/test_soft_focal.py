"""Focal loss of soft labels against a formula on Python floats, and its limits."""

import math

import pytest
import torch
from torch.testing import assert_close

from detloss.classification import sigmoid_cross_entropy, sigmoid_focal_loss, soft_focal_loss

LOGITS = torch.tensor([[2, -1, 0.5], [-3, 0, 1], [0.1, 0.2, -0.3]], dtype=torch.float64)
LABELS = torch.tensor([0, 2, 3])  # the last row is background
QUALITY = torch.tensor([0.8, 0.3, math.nan], dtype=torch.float64)


def slow(logit, label, alpha, gamma):
    """The formula of the docstring."""
    p = 1 / (1 + math.exp(-logit))
    wrong = label * (1 - p) + (1 - label) * p
    weight = 1 if alpha is None else alpha * label + (1 - alpha) * (1 - label)
    return -weight * wrong**gamma * (label * math.log(p) + (1 - label) * math.log(1 - p))


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        pytest.param(1.0, 0.25 * 0.25 * math.log(2), id="yes: alpha (1/2)^2 ln 2"),
        pytest.param(0.5, 0.50 * 0.25 * math.log(2), id="halfway the factor is 1/2"),
        pytest.param(0.0, 0.75 * 0.25 * math.log(2), id="no: (1 - alpha) (1/2)^2 ln 2"),
    ],
)
def test_at_logit_0_by_hand(label, expected):
    loss = soft_focal_loss(torch.zeros(1, 1), torch.tensor([[label]]))
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("alpha", "gamma"), [(0.25, 1.5), (0.75, 2.0), (1.0, 0.5), (0.0, 0.0), (None, 2.0)]
)
def test_agrees_with_the_formula(alpha, gamma, smoothing):
    options = {"alpha": alpha, "gamma": gamma, "label_smoothing": smoothing}
    loss = soft_focal_loss(LOGITS, LABELS, quality=QUALITY, **options)
    dense = torch.zeros_like(LOGITS)
    dense[0, 0], dense[1, 2] = QUALITY[0], QUALITY[1]
    assert_close(soft_focal_loss(LOGITS, dense, **options), loss)
    smooth = dense * (1 - smoothing) + smoothing / 2
    expected = [
        [slow(x, y, alpha, gamma) for x, y in zip(*rows, strict=True)]
        for rows in zip(LOGITS.tolist(), smooth.tolist(), strict=True)
    ]
    assert_close(loss, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("alpha", [0.3, None])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.5, 2.0])
def test_with_hard_labels_it_is_focal_loss(gamma, alpha):
    expected = sigmoid_focal_loss(LOGITS, LABELS, alpha=alpha, gamma=gamma)
    ones = torch.ones(3, dtype=torch.float64)
    for quality in (None, ones):
        loss = soft_focal_loss(LOGITS, LABELS, quality=quality, alpha=alpha, gamma=gamma)
        assert_close(loss, expected)


def test_between_hard_labels_it_is_not_linear_as_focal_loss_is():
    options = {"quality": QUALITY, "alpha": 0.25, "gamma": 2.0}
    ours, linear = (
        loss(LOGITS, LABELS, **options) for loss in (soft_focal_loss, sigmoid_focal_loss)
    )
    has_label = QUALITY[:, None].isfinite() & (LABELS[:, None] == torch.arange(3))
    assert ((ours - linear).abs() > 1e-3)[has_label].all()
    assert_close(ours[~has_label], linear[~has_label])


def test_without_a_modulation_it_is_half_the_cross_entropy():
    loss = soft_focal_loss(LOGITS, LABELS, quality=QUALITY, alpha=0.5, gamma=0.0)
    assert_close(2 * loss, sigmoid_cross_entropy(LOGITS, LABELS, quality=QUALITY))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, r"alpha must be in \[0, 1\], got 1.5"),
        ({"gamma": -1}, "gamma must be at least 0, got -1"),
    ],
)
def test_rejects_options(options, message):
    with pytest.raises(ValueError, match=message):
        soft_focal_loss(LOGITS, LABELS, **options)
