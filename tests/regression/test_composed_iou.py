"""Any combination of what IoU losses do. What holds for every loss is in test_contract.py."""

from fractions import Fraction

import pytest
import torch
from boxgen import box_pairs
from exact import at_least_1_if_inverted, iou, iou_of_lengths, lengths, penalties, real, trade_off
from hypothesis import given
from torch.testing import assert_close

from detloss.regression import (
    ComposedIoULoss,
    alpha_iou_loss,
    ciou_loss,
    composed_iou_loss,
    focal_eiou_loss,
    focaler_iou_loss,
    inner_iou_loss,
    iou_loss,
)


@given(box_pairs())
def test_each_alone_is_the_loss_of_its_name(pair):
    composed = composed_iou_loss
    assert torch.equal(composed(*pair), ciou_loss(*pair))
    assert_close(composed(*pair, ratio=0.75), inner_iou_loss(*pair))
    assert_close(composed(*pair, member="iou", high=0.95), focaler_iou_loss(*pair))
    assert_close(composed(*pair, alpha=3.0), alpha_iou_loss(*pair))
    assert_close(composed(*pair, member="eiou", gamma=0.5), focal_eiou_loss(*pair))
    assert_close(composed(*pair, member="iou", mode="log"), iou_loss(*pair, mode="log"))


def test_all_at_once_worked_by_hand():
    """One centre, a quarter inside, so IoU 1/4 by any ratio; sides differ by 1/2 of the hull.

    F = (1/4 - 0.05) / 0.8 = 1/4; 1/4^2 (1 - 1/4^3 + 2 (1/4)^3).
    """
    pred, target = torch.tensor([[1.0, 1, 3, 3]]), torch.tensor([[0.0, 0, 4, 4]])
    loss = composed_iou_loss(
        pred, target, member="eiou", ratio=1.2, low=0.05, high=0.85, alpha=3.0, gamma=2.0
    )
    assert_close(loss, torch.tensor([(1 + 1 / 64) / 16]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "cubic"}, "mode"),
        ({"member": "l1"}, "member"),
        ({"low": 0.5, "high": 0.5}, "low must be below high"),
    ],
)
def test_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        composed_iou_loss(torch.zeros(1, 4), torch.zeros(1, 4), **options)
    with pytest.raises((TypeError, ValueError), match=message):
        ComposedIoULoss(**options)


EXACT_OPTIONS = [
    {"member": "ciou", "ratio": 0.75, "low": 0.125, "high": 0.75, "alpha": 2.0, "gamma": 1.0},
    {"member": "giou", "mode": "square", "gamma": 2.0},
]


def exact_loss(
    pred, target, member, gamma, ratio=1, low=0, high=1, mode="linear", alpha=1, held=(None, None)
):
    """The loss of one pair for `test_golden.py`, by the papers of its parts."""
    scale, low, high = Fraction(ratio), Fraction(low), Fraction(high)
    axes = [(scale * w, scale * true, offset) for w, true, offset, _ in lengths(pred, target)]
    share = min(max((iou_of_lengths(*axes) - low) / (high - low), 0), 1)
    loss = 1 - real(share) ** (2 if mode == "square" else int(alpha))
    loss += sum(penalty ** int(alpha) for penalty in penalties(member, pred, target, held[0]))
    factor = iou(pred, target) if held[1] is None else held[1]
    return at_least_1_if_inverted(real(factor) ** int(gamma) * loss, pred, target)


def exact_constants(pred, target):
    return {"held": (trade_off(pred, target), iou(pred, target))}
