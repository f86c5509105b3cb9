"""Gradients worked by hand against autograd through the plain measures, ties included."""

import pytest
import torch
from torch.testing import assert_close

from detloss.boxes.overlaps import ciou, diou, giou, iou
from detloss.boxes.slopes import AspectDifference, CentreDistance, Pair, step

EPS = 1e-7


def grid_boxes(count, seed):
    """Corners on a 4 x 4 grid: half of the pairs tie somewhere; flat and inverted ones too."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 4, (count, 4), generator=generator).double()


def autograd(measure, first, second):
    first = first.clone().requires_grad_()
    values = measure(first, second, EPS)
    (gradient,) = torch.autograd.grad(values.sum(), first)
    return values.detach(), gradient


def gradient_of(pair, **pulls):
    out = torch.empty(len(pair.iou), 4, dtype=pair.iou.dtype)
    pair.gradient(out, **pulls)
    return out


def by_hand(kind, first, second):
    pair = Pair(first, second, EPS)
    pulls = {"shared": pair.iou_by_shared, "area": pair.iou_by_area}
    if kind is iou:
        return pair.iou, gradient_of(pair, **pulls)
    if kind is giou:
        hull = pair.hull_area
        floored = hull.clamp(min=EPS)
        by_hull = -pair.union / floored.square() * step(hull - EPS)
        pulls["shared"] = pulls["shared"] - 1 / floored
        pulls["area"] = pulls["area"] + 1 / floored
        value = pair.iou - (hull - pair.union) / floored
        return value, gradient_of(pair, **pulls, hull_area=by_hull)
    distance = CentreDistance(pair)
    pulls |= {"hull": -distance.by_hull, "offset": -distance.by_offset}
    if kind is diou:
        return pair.iou - distance.value, gradient_of(pair, **pulls)
    aspect = AspectDifference(pair)
    alpha = aspect.value / (1 - pair.iou + aspect.value).clamp(min=EPS)
    side = -alpha * aspect.by_side
    value = pair.iou - distance.value - alpha * aspect.value
    return value, gradient_of(pair, **pulls, side=side)


@pytest.mark.parametrize("measure", [iou, giou, diou, ciou], ids=lambda m: m.__name__)
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
@pytest.mark.parametrize("kind", ["any", "upright"])
def test_equals_autograd_on_boxes_that_tie(measure, scale, kind):
    first, second = grid_boxes(3000, 0) * scale, grid_boxes(3000, 1) * scale
    # two flat boxes on one line divide by the floor, and their slopes overflow any comparison
    areas = (first[:, 2:] - first[:, :2]).clamp(min=0).prod(1)
    areas += (second[:, 2:] - second[:, :2]).clamp(min=0).prod(1)
    first, second = first[areas > 0], second[areas > 0]
    if kind == "upright":
        upright = (first[:, 2:] > first[:, :2]).all(1) & (second[:, 2:] > second[:, :2]).all(1)
        first, second = first[upright], second[upright]
        assert len(first) > 40
    value, gradient = by_hand(measure, first, second)
    expected, expected_gradient = autograd(measure, first, second)
    assert_close(value, expected)
    assert_close(gradient, expected_gradient)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(3.0, 1.0, id="above"),
        pytest.param(0.0, 0.5, id="at a tie, half"),
        pytest.param(-1e-30, 0.0, id="below"),
    ],
)
def test_step(value, expected):
    assert step(torch.tensor(value)) == expected


def test_worked_by_hand():
    """Sides 2 x 1 inside a target of area 8: IoU 1/4; wider by dx, IoU grows by 1/8 dx."""
    pair = Pair(torch.tensor([[1.0, 0.5, 3.0, 1.5]]), torch.tensor([[0.0, 0.0, 4.0, 2.0]]), EPS)
    assert pair.iou.item() == 0.25
    gradient = gradient_of(pair, shared=pair.iou_by_shared, area=pair.iou_by_area)
    assert_close(gradient, torch.tensor([[-0.125, -0.25, 0.125, 0.25]]))
