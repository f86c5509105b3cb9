"""Wise-IoU loss. What holds for every registered loss is in test_contract.py."""

import copy
import math

import pytest
import torch
from boxgen import random_boxes
from exact import REALS, at_least_1_if_inverted, iou, lengths, real
from torch.testing import assert_close

from detloss.regression import WiseIoULoss, wise_iou_loss

PAIRS = {
    "A": ([0.0, 0, 2, 2], [1.0, 0, 3, 2]),  # half shifted: IoU 1/3
    "B": ([0.0, 0, 1, 1], [1.0, 1, 2, 2]),  # corner to corner
    "E": ([1.0, 1, 3, 3], [0.0, 0, 4, 4]),  # inside, one centre: IoU 1/4
}
A = math.exp(1 / 13) * 2 / 3  # d2 1 over c2 13


@pytest.mark.parametrize(
    ("pair", "options", "expected"),
    [
        pytest.param("A", {}, A, id="A: version 1"),
        pytest.param("B", {}, math.exp(1 / 4), id="B: version 1"),
        pytest.param("E", {}, 3 / 4, id="E: one centre"),
        pytest.param("A", {"version": 2, "mean": 0.5}, A * (4 / 3) ** 0.5, id="A: b 4/3"),
        pytest.param(
            "A", {"version": 3, "mean": 0.5}, A * 4 / 9 / 1.9 ** (4 / 3 - 3), id="A: b over delta"
        ),
        pytest.param("E", {"version": 3, "mean": 0.25}, 3 / 4, id="E: b is delta"),
        pytest.param(
            "B",
            {"version": 3, "mean": 0.5, "alpha": 1.7, "delta": 2.7},
            1.378968,
            id="B: the authors' later numbers",
        ),
    ],
)
def test_values_worked_by_hand(pair, options, expected):
    pred, target = (torch.tensor([box], dtype=torch.float64) for box in PAIRS[pair])
    loss = wise_iou_loss(pred, target, **options)
    assert_close(loss, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-6)


def test_a_box_apart_is_pulled_and_does_not_grow():
    """With a gradient of the hull, its first corner would move away from the target."""
    pred = torch.tensor([[0.0, 0, 1, 1]], requires_grad=True)
    wise_iou_loss(pred, torch.tensor([[10.0, 10, 12, 14]])).backward()
    assert (pred.grad < 0).all()
    assert_close(pred.grad[0, :2], pred.grad[0, 2:])


@pytest.mark.parametrize("version", [2, 3])
def test_the_focus_is_constant_for_the_gradient(version):
    pred, target = random_boxes(20, seed=1), random_boxes(20, seed=1) + 3
    found = []
    for number in (1, version):
        boxes = pred.clone().requires_grad_()
        loss = wise_iou_loss(boxes, target, version=number, mean=0.5)
        loss.sum().backward()
        found.append((loss.detach(), boxes.grad))
    (plain, gradient), (focused, focused_gradient) = found
    assert_close(focused_gradient, gradient * (focused / plain)[:, None])


def boxes_of_iou(*overlaps):
    """Targets of 1 x 1 and predictions within them."""
    target = torch.tensor([[0.0, 0, 1, 1]]).expand(len(overlaps), 4)
    return target * torch.tensor([[1, 1, 1, overlap] for overlap in overlaps]), target


def test_the_mean_moves_once_a_call_before_it_is_used():
    loss = WiseIoULoss(version=2, momentum=0.5)
    pair = boxes_of_iou(0.5, 0.75)
    value = loss(*pair)
    assert_close(loss.running_mean, torch.tensor(0.5 * 1 + 0.5 * 0.375))
    assert_close(value, wise_iou_loss(*pair, version=2, mean=0.6875, reduction="mean"))
    loss(*pair)
    assert_close(loss.running_mean, torch.tensor(0.5 * 0.6875 + 0.5 * 0.375))


def test_the_mean_stays_in_evaluation_and_in_version_1():
    for loss in (WiseIoULoss(version=3, momentum=0.5).eval(), WiseIoULoss(momentum=0.5)):
        loss(*boxes_of_iou(0.5))
        assert loss.running_mean == 1


@pytest.mark.parametrize(
    ("pred", "weight"),
    [
        pytest.param(torch.zeros(0, 4), None, id="no row"),
        pytest.param(torch.zeros(2, 4), torch.zeros(2), id="no row that counts"),
        pytest.param(torch.full((2, 4), math.nan), None, id="a network that diverged"),
    ],
)
def test_a_batch_without_a_finite_loss_leaves_the_mean(pred, weight):
    loss = WiseIoULoss(version=3, momentum=0.5)
    loss(pred, torch.rand(len(pred), 4), weight)
    assert loss.running_mean == 1


def test_rows_of_weight_0_do_not_count():
    loss = WiseIoULoss(version=3, momentum=1.0)
    pred, target = boxes_of_iou(0.25, 0.75)
    pred = torch.cat([pred, torch.full((1, 4), math.nan)])
    target = torch.cat([target, target[:1]])
    assert loss(pred, target, torch.tensor([0.0, 2, 0])).isfinite()
    assert_close(loss.running_mean, torch.tensor(0.25))


def test_the_mean_is_saved_and_a_second_backward_sees_its_own():
    loss = WiseIoULoss(version=3, momentum=0.5)
    pred, target = boxes_of_iou(0.5, 0.25)
    pred.requires_grad_()
    value = loss(pred, target)
    (first,) = torch.autograd.grad(value, pred, retain_graph=True)
    loss(pred, target)
    (second,) = torch.autograd.grad(value, pred)
    assert torch.equal(first, second)
    again = WiseIoULoss(version=3)
    again.load_state_dict(copy.deepcopy(loss.state_dict()))
    assert torch.equal(again.running_mean, loss.running_mean)
    assert loss.config()["mean"] == 1
    assert loss.half().running_mean.dtype == torch.float32


def test_rejects_an_unknown_version():
    with pytest.raises(ValueError, match="version must be one of 1, 2, 3, got 4"):
        wise_iou_loss(torch.zeros(1, 4), torch.zeros(1, 4), version=4)
    with pytest.raises(ValueError, match="WiseIoULoss: version: expected 1, 2 or 3, got 4"):
        WiseIoULoss(version=4)


EXACT_OPTIONS = [{"version": 1}, {"version": 2}, {"version": 3}]


def exact_loss(pred, target, version, held=None):
    """The loss of one pair for `test_golden.py`: Wise-IoU, equations 7 to 10, of a mean of 1.

    `held` are the squared diagonal and ``1 - IoU`` as constants.
    """
    lost = real(1 - iou(pred, target))
    diagonal, b = constants(pred, target) if held is None else held
    squared = sum(offset**2 for _, _, offset, _ in lengths(pred, target))
    r = {1: 1, 2: REALS.sqrt(b), 3: b / (3 * real(1.9) ** (b - 3))}[version]
    return at_least_1_if_inverted(r * REALS.exp(real(squared / diagonal)) * lost, pred, target)


def constants(pred, target):
    diagonal = sum(hull**2 for *_, hull in lengths(pred, target))
    return diagonal, real(1 - iou(pred, target))


def exact_constants(pred, target):
    return {"held": constants(pred, target)}
