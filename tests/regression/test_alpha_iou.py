"""Alpha-IoU loss. What holds for every registered loss is in test_contract.py."""

import pytest
import torch
from exact import iou, penalties, real, trade_off
from torch.testing import assert_close

from detloss.regression import alpha_iou_loss

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
        pytest.param("A", {"member": "diou"}, 1 - 1 / 3**3 + 1 / 13**3, id="A: cubes"),
        pytest.param("B", {"member": "giou"}, 1 + 1 / 2**3, id="B: half of the hull is empty"),
        pytest.param("C", {"member": "iou"}, 1 - 1 / 7**3, id="C: the IoU alone"),
        pytest.param("C", {}, 1.0046468, id="C: alpha v with the plain IoU in alpha"),
        pytest.param("E", {"member": "iou", "alpha": 0.5}, 0.5, id="E: a root"),
    ],
)
def test_values_worked_by_hand(pair, options, expected):
    pred, target = (torch.tensor([box], dtype=torch.float64) for box in PAIRS[pair])
    loss = alpha_iou_loss(pred, target, **options)
    assert_close(loss, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-6)


def test_identical_boxes_in_float32():
    """The authors' code is 0 / 0 there, since its eps of 1e-9 is less than half an ulp of 1."""
    boxes = torch.tensor([[1.0, 2.0, 5.0, 9.0]], requires_grad=True)
    loss = alpha_iou_loss(boxes, boxes.detach())
    loss.backward()
    assert loss == 0
    assert boxes.grad.isfinite().all()


EXACT_OPTIONS = [
    {"member": member, "alpha": alpha}
    for member in ("iou", "giou", "diou", "ciou")
    for alpha in (2.0, 3.0)
]


def exact_loss(pred, target, member, alpha, held=None):
    """The loss of one pair for `test_golden.py`: Alpha-IoU, equations 3 and 4."""
    terms = (penalty ** int(alpha) for penalty in penalties(member, pred, target, held))
    return 1 - real(iou(pred, target)) ** int(alpha) + sum(terms)


def exact_constants(pred, target):
    return {"held": trade_off(pred, target)}
