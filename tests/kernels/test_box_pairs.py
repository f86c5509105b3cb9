"""Gradients worked by hand against autograd through the plain measures, ties included."""

import pytest
import torch
from torch.testing import assert_close

from detloss.boxes.overlaps import ciou, diou, giou, iou
from detloss.kernels import box_pairs
from detloss.kernels.box_pairs import AspectDifference, CentreDistance, Pair, step

MIN_SIZE = 0.5
"""Between the sides of flat boxes on the grid, 0, and of the others."""


def grid_boxes(count, seed):
    """Corners on a 4 x 4 grid: half of the pairs tie somewhere; flat and inverted ones too."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 4, (count, 4), generator=generator).double()


def autograd(measure, first, second, min_size):
    first = first.clone().requires_grad_()
    losses = 1 - measure(first, second, min_size)
    (gradient,) = torch.autograd.grad(losses.sum(), first)
    return losses.detach(), gradient


def gradient_of(pair, **pulls):
    out = torch.empty(len(pair.rows(pair.iou)), 4, dtype=pair.iou.dtype)
    pair.gradient(out, **pulls)
    return out


def by_hand(kind, first, second, min_size):
    pair = Pair(first, second, min_size)
    if kind is iou:
        return pair.rows(1 - pair.iou), gradient_of(pair)
    if kind is giou:
        sides = pair.hull.clamp(min=min_size)
        floored = sides.prod(0)
        empty = (pair.hull_area - pair.union) / floored
        hull = -empty / sides * step(pair.hull - min_size)
        gradient = gradient_of(pair, union=1 / floored, hull_area=1 / floored, hull=hull)
        return pair.rows(1 - pair.iou + empty), gradient
    distance = CentreDistance(pair)
    pulls = {"hull": distance.by_hull, "offset": distance.by_offset}
    loss = 1 - pair.iou + distance.value
    if kind is diou:
        return pair.rows(loss), gradient_of(pair, **pulls)
    aspect = AspectDifference(pair)
    alpha = aspect.value / (1 - pair.iou + aspect.value).clamp(min=1e-16)
    gradient = gradient_of(pair, **pulls, side=alpha * aspect.by_side)
    return pair.rows(loss + alpha * aspect.value), gradient


@pytest.mark.parametrize("measure", [iou, giou, diou, ciou], ids=lambda m: m.__name__)
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
@pytest.mark.parametrize("kind", ["any", "upright"])
def test_equals_autograd_on_boxes_that_tie(measure, scale, kind):
    first, second = grid_boxes(3000, 0) * scale, grid_boxes(3000, 1) * scale
    if kind == "upright":
        upright = (first[:, 2:] > first[:, :2]).all(1) & (second[:, 2:] > second[:, :2]).all(1)
        first, second = first[upright], second[upright]
        assert len(first) > 40
    loss, gradient = by_hand(measure, first, second, MIN_SIZE * scale)
    expected, expected_gradient = autograd(measure, first, second, MIN_SIZE * scale)
    assert_close(loss, expected)
    assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("measure", [iou, giou, diou, ciou], ids=lambda m: m.__name__)
@pytest.mark.parametrize("cores", [2, 3, 7])
@pytest.mark.parametrize("count", [1000, 4095, 4200, 4201])
def test_parts_for_several_cores(measure, cores, count, monkeypatch):
    """Equal parts, or pairs that are in two of them; fewer parts than cores where pairs are few."""
    first, second = grid_boxes(count, 0), grid_boxes(count, 1)
    expected, expected_gradient = by_hand(measure, first, second, MIN_SIZE)
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    monkeypatch.setattr(box_pairs, "LEAST_PART", 600)
    loss, gradient = by_hand(measure, first, second, MIN_SIZE)
    assert_close(loss, expected)
    assert_close(gradient, expected_gradient)
    assert len(Pair(first, second, MIN_SIZE).iou) == min(cores, count // 600)


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
    """Sides 2 x 1 inside a target of area 8: IoU 1/4; wider by dx, 1 - IoU falls by 1/8 dx."""
    first, second = torch.tensor([[1.0, 0.5, 3.0, 1.5]]), torch.tensor([[0.0, 0.0, 4.0, 2.0]])
    pair = Pair(first, second, MIN_SIZE)
    assert pair.iou.item() == 0.25
    expected = torch.tensor([[0.125, 0.25, -0.125, -0.25]])
    assert_close(gradient_of(pair), expected)
    assert_close(gradient_of(pair, iou=torch.tensor([3.0])), 3 * expected)
