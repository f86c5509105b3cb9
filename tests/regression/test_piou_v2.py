"""Powerful-IoU v2 loss. What holds for every registered loss is in test_contract.py."""

import math
from fractions import Fraction

import pytest
import torch
from exact import REALS, at_least_1_if_inverted, iou, real, whole
from torch.testing import assert_close

from detloss.regression import PIoUv2Loss, piou_loss, piou_v2_loss

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
        pytest.param(
            "A",
            {},
            3 * 1.3 * math.exp(-0.25 - 1.69 * math.exp(-0.5)) * (5 / 3 - math.exp(-1 / 16)),
            id="A: P 1/4",
        ),
        pytest.param(
            "B", {}, 3 * 1.3 * math.exp(-1 - 1.69 * math.exp(-2)) * (2 - math.exp(-1)), id="B: P 1"
        ),
        pytest.param("D", {}, 0.134139, id="D: far off: hardly anything"),
        pytest.param("A", {"weight_factor": 1e-9}, 0.0, id="A: no weight"),
    ],
)
def test_values_worked_by_hand(pair, options, expected):
    pred, target = (torch.tensor([box], dtype=torch.float64) for box in PAIRS[pair])
    loss = piou_v2_loss(pred, target, **options)
    assert_close(loss, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("shift", "by_authors"), [(1.0, -0.171), (1.5, -1.008)])
def test_the_conventions_differ_by_the_gradient_alone(shift, by_authors):
    """Of a unit box that is shifted along the diagonal by s, by its size or more: P is s.

    ``L = u(x) f`` with ``x = 1.3 e^-s`` and ``f = 2 - e^(-s^2)``. By s it is ``u f'`` where u is
    constant, and ``u' f`` more where it is not.
    """
    x = 1.3 * math.exp(-shift)
    by_paper = 3 * x * math.exp(-(x**2)) * 2 * shift * math.exp(-(shift**2))
    of_factor = 3 * math.exp(-(x**2)) * (1 - 2 * x**2) * -x
    assert by_paper + of_factor * (2 - math.exp(-(shift**2))) == pytest.approx(by_authors, abs=1e-3)
    target = torch.tensor([[0.0, 0, 1, 1]], dtype=torch.float64)
    found = []
    for convention in ("paper", "authors"):
        pred = (target + shift).requires_grad_()
        loss = piou_v2_loss(pred, target, convention=convention)
        loss.backward()
        found.append((loss.detach(), pred.grad.sum().item()))
    assert_close(found[0][0], found[1][0])
    assert [slope for _, slope in found] == pytest.approx([by_paper, by_authors], abs=1e-3)


def test_rejects_an_unknown_convention():
    with pytest.raises(ValueError, match="convention must be one of paper, authors, got 'code'"):
        piou_v2_loss(torch.zeros(1, 4), torch.zeros(1, 4), convention="code")
    with pytest.raises(ValueError, match="PIoUv2Loss: convention: expected 'paper' or 'authors'"):
        PIoUv2Loss(convention="code")


def test_the_factor_is_constant_for_the_gradient():
    target = torch.tensor([[0.0, 0, 1, 1]], dtype=torch.float64)
    found = []
    for loss in (piou_v2_loss, piou_loss):
        pred = (target + 1).requires_grad_()
        loss(pred, target).backward()
        found.append(pred.grad)
    factor = piou_v2_loss(target + 1, target) / piou_loss(target + 1, target)
    assert_close(found[0], found[1] * factor)
    assert (found[0] > 0).all()  # a step down moves it back


EXACT_OPTIONS = [{"weight_factor": 1.3}, {"weight_factor": 1.3, "convention": "authors"}]


def quality(pred, target):
    numbers, _ = whole(pred + target)
    x1, y1, x2, y2 = numbers[:4]
    u1, v1, u2, v2 = numbers[4:]
    x2, y2, u2, v2 = max(x1, x2), max(y1, y2), max(u1, u2), max(v1, v2)  # inverted ones collapse
    if not (u2 > u1 and v2 > v1):
        return 0  # of a flat target the distance is endless
    x = Fraction(abs(x1 - u1) + abs(x2 - u2), u2 - u1)
    y = Fraction(abs(y1 - v1) + abs(y2 - v2), v2 - v1)
    return REALS.exp(real(-(x + y) / 4))


def exact_loss(pred, target, weight_factor, convention="paper", held=None):
    """The loss of one pair for `test_golden.py`: Powerful-IoU, equations 8 to 13."""
    q = quality(pred, target)
    x = real(weight_factor) * (q if held is None or convention == "authors" else held)
    loss = (
        3 * x * REALS.exp(-(x**2)) * (real(2 - iou(pred, target)) - REALS.exp(-(REALS.log(q) ** 2)))
    )
    return at_least_1_if_inverted(loss, pred, target)


def exact_constants(pred, target):
    return {"held": quality(pred, target)}
