"""The core of the IoU losses: whatever is composed is its plain formula, by hand as by autograd."""

import pytest
import torch
from boxgen import box_pairs, random_boxes
from hypothesis import given
from torch.testing import assert_close

from detloss.kernels import plain_formulas
from detloss.regression.family import Composition, at_least_1_where, family_loss
from detloss.regression.members import MEMBERS

CLOSED = sorted(name for name, member in MEMBERS.items() if member.fused is not None)
COMPOSED = {
    "as it is": {},
    "cubed": {"power": 3.0},
    "square roots": {"power": 0.5},
    "an interval": {"low": 0.1, "high": 0.8},
    "log": {"mode": "log"},
    "square of an interval": {"mode": "square", "low": 0.2, "high": 0.9},
    "a gain": {"gain": lambda pairs: pairs.iou.sqrt(), "power": 2.0},
}


def grid_pairs(count=2000):
    """Corners on a grid: pairs that tie, flat ones and inverted ones, no IoU of 0.3."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.randint(0, 4, (2, count, 4), generator=generator).double()
    return boxes.unbind()


def value_and_gradient(composition, pred, target):
    pred = pred.clone().requires_grad_()
    loss = family_loss(composition, pred, target, weight=None, reduction="none")
    loss.sum().backward()
    return loss.detach(), pred.grad


@pytest.mark.parametrize("boxes", ["ordinary", "on a grid"])
@pytest.mark.parametrize("composed", COMPOSED)
@pytest.mark.parametrize("name", CLOSED)
def test_closed_form_is_what_autograd_gives(name, composed, boxes):
    pred, target = grid_pairs()
    eps = 0.09  # a least side of 0.3, which no side or IoU is
    if boxes == "ordinary":
        pred, target = random_boxes(500, seed=1), random_boxes(500, seed=2)
        pred[::2], eps = target[::2] + pred[::2] / 50, 1e-7
    composition = Composition(MEMBERS[name], eps, **COMPOSED[composed])
    assert composition.has_closed_form
    found = value_and_gradient(composition, pred, target)
    with plain_formulas():
        expected = value_and_gradient(composition, pred, target)
    assert_close(found, expected)
    assert all(values.isfinite().all() for values in found)


@given(box_pairs())
def test_what_changes_nothing(pair):
    pred, target = pair
    plain = value_and_gradient(Composition(MEMBERS["iou"], 1e-7), pred, target)
    near_1 = Composition(MEMBERS["iou"], 1e-7, ratio=1 + 1e-9)
    assert_close(value_and_gradient(near_1, pred, target)[0], plain[0], rtol=0, atol=1e-7)
    gain = Composition(MEMBERS["iou"], 1e-7, gain=lambda pairs: torch.ones_like(pairs.iou))
    assert_close(value_and_gradient(gain, pred, target), plain)
    factor = Composition(MEMBERS["iou"], 1e-7, factor=lambda pairs: torch.ones_like(pairs.iou))
    assert not factor.has_closed_form
    assert_close(value_and_gradient(factor, pred, target), plain)


def test_powers_worked_by_hand():
    """IoU 1/4 and no penalty: 1 - 1/4^3; 1 - sqrt(1/4); 1 - 1/16; ln 4; (1/4 - 0.2) / 0.5 done."""
    pred, target = torch.tensor([[1.0, 1, 3, 3]]), torch.tensor([[0.0, 0, 4, 4]])
    for options, expected in (
        ({"power": 3.0}, 63 / 64),
        ({"power": 0.5}, 1 / 2),
        ({"mode": "square"}, 15 / 16),
        ({"mode": "log"}, 1.3862944),
        ({"low": 0.2, "high": 0.7}, 0.9),
        ({"ratio": 0.5}, 3 / 4),
    ):
        loss, _ = value_and_gradient(Composition(MEMBERS["iou"], 1e-7, **options), pred, target)
        assert_close(loss, torch.tensor([expected]))


def test_a_power_below_1_is_linear_up_to_eps():
    """Where boxes do not overlap, the steepest is eps^(a - 1): here 10."""
    pred, target = torch.tensor([[1.0, 0, 2, 1]]), torch.tensor([[0.0, 0, 1, 1]])
    loss, gradient = value_and_gradient(Composition(MEMBERS["iou"], 1e-2, power=0.5), pred, target)
    _, plain = value_and_gradient(Composition(MEMBERS["iou"], 1e-2), pred, target)
    assert loss == 1
    assert_close(gradient, 10 * plain)


def test_an_inverted_box_is_not_excused_by_a_gain():
    pred = torch.tensor([[3.0, 0, 1, 2], [1, 0, 3, 2]])
    target = torch.tensor([[1.0, 0, 3, 2], [3, 0, 1, 2]])
    nothing = Composition(MEMBERS["iou"], 1e-7, gain=lambda pairs: 0 * pairs.iou)
    loss, gradient = value_and_gradient(nothing, pred, target)
    assert loss.tolist() == [1, 1]
    assert gradient[0].tolist() == [1 / 16, 0, -1 / 16, 0]  # what turns it: 2 / (2 + 2)^2 / 2
    assert not gradient[1].any()


def test_at_least_1_where():
    found = at_least_1_where(torch.tensor([True, True, False]), torch.tensor([0.5, 2, 0.5]))
    assert found.tolist() == [1, 2, 0.5]
