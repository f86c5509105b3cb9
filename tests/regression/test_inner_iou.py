"""Inner-IoU loss. What holds for every registered loss is in test_contract.py."""

from fractions import Fraction

import pytest
import torch
from exact import iou_of_lengths, lengths, penalties, real, trade_off
from torch.testing import assert_close

from detloss.regression import ciou_loss, inner_iou_loss

PAIRS = {
    "A": ([0.0, 0, 2, 2], [1.0, 0, 3, 2]),  # half shifted: IoU 1/3
    "B": ([0.0, 0, 1, 1], [1.0, 1, 2, 2]),  # corner to corner
    "C": ([0.0, 0, 4, 1], [0.0, 0, 1, 4]),  # across: IoU 1/7
    "D": ([0.0, 0, 1, 1], [10.0, 10, 12, 14]),  # apart
    "E": ([1.0, 1, 3, 3], [0.0, 0, 4, 4]),  # inside, one centre: IoU 1/4
}


@pytest.mark.parametrize(
    ("pair", "options", "expected"),
    [
        pytest.param("A", {"member": "iou"}, 1 - 0.75 / 3.75, id="A: 1 1/2 wide"),
        pytest.param(
            "B",
            {"member": "iou", "ratio": 1.2},
            1 - 0.04 / 2.84,
            id="B: 1/5 shared",
        ),
        pytest.param(
            "C",
            {"member": "iou"},
            1 - 0.140625 / 4.359375,
            id="C: about the centre",
        ),
        pytest.param("E", {"member": "iou"}, 3 / 4, id="E: one centre: no ratio matters"),
    ],
)
def test_values_worked_by_hand(pair, options, expected):
    pred, target = (torch.tensor([box], dtype=torch.float64) for box in PAIRS[pair])
    loss = inner_iou_loss(pred, target, **options)
    assert_close(loss, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-6)


def test_penalties_are_those_of_the_boxes_as_they_are():
    """Of the paper's Inner-X the difference from X is that of the IoUs, here 1/3 and 1/5."""
    pred, target = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]])
    assert_close(inner_iou_loss(pred, target) - ciou_loss(pred, target), torch.tensor([2 / 15]))


def test_a_ratio_of_1_is_the_member():
    pred, target = torch.tensor([[0.0, 0, 4, 1]]), torch.tensor([[0.0, 0, 1, 4]])
    assert torch.equal(inner_iou_loss(pred, target, ratio=1.0), ciou_loss(pred, target))


EXACT_OPTIONS = [
    {"member": member, "ratio": ratio} for member in ("iou", "ciou") for ratio in (0.75, 1.25)
]


def exact_loss(pred, target, member, ratio, held=None):
    """The loss of one pair for `test_golden.py`: Inner-IoU, equations 5 to 11."""
    scale = Fraction(ratio)
    axes = [(scale * w, scale * true, offset) for w, true, offset, _ in lengths(pred, target)]
    others = sum(penalties(member, pred, target, held))
    return real(1 - iou_of_lengths(*axes)) + others


def exact_constants(pred, target):
    return {"held": trade_off(pred, target)}
