"""Gradients worked by hand against autograd through the plain measures, ties included."""

import pytest
import torch
from torch.testing import assert_close

from detloss.boxes.lengths import Lengths
from detloss.boxes.overlaps import ciou, diou, giou, iou
from detloss.kernels import box_pairs
from detloss.kernels.box_pairs import AspectDifference, BoxPairs, CentreDistance, Product

MIN_SIZE = 0.5
"""Between the sides of flat boxes on the grid, 0, and of the others."""


def grid_boxes(count, seed):
    """Corners on a 4 x 4 grid: half of the pairs tie somewhere; flat and inverted ones too."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 4, (count, 4), generator=generator).double()


def autograd(measure, first, second, min_size):
    first = first.clone().requires_grad_()
    losses = 1 - measure(Lengths(first, second, min_size))
    (gradient,) = torch.autograd.grad(losses.sum(), first)
    return losses.detach(), gradient


def gradient_of(pairs, **by_measures):
    out = torch.empty(len(pairs.rows(pairs.iou)), 4, dtype=pairs.iou.dtype)
    pairs.gradient(out, **by_measures)
    return out


def by_hand(kind, first, second, min_size):
    pairs = BoxPairs(first, second, min_size)
    if kind is iou:
        return pairs.rows(1 - pairs.iou), gradient_of(pairs)
    if kind is giou:
        covered = pairs.union / pairs.hull_area
        gradient = gradient_of(
            pairs, union=-1 / pairs.hull_area, hull_area=covered / pairs.hull_area
        )
        return pairs.rows(2 - pairs.iou - covered), gradient
    distance = CentreDistance(pairs)
    by_measures = {"hull_sides": distance.by_hull_sides, "offset": distance.by_offset}
    loss = 1 - pairs.iou + distance.value
    if kind is diou:
        return pairs.rows(loss), gradient_of(pairs, **by_measures)
    aspect = AspectDifference(pairs)
    alpha = aspect.value / (1 - pairs.iou + aspect.value).clamp(min=1e-16)
    by_sides = aspect.by_sides._replace(other=alpha * aspect.by_sides.other)
    gradient = gradient_of(pairs, **by_measures, sides=by_sides)
    return pairs.rows(loss + alpha * aspect.value), gradient


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
    assert len(BoxPairs(first, second, MIN_SIZE).iou) == min(cores, count // 600)


def test_worked_by_hand():
    """Sides 2 x 1 inside a target of area 8: IoU 1/4; wider by dx, 1 - IoU falls by 1/8 dx."""
    first, second = torch.tensor([[1.0, 0.5, 3.0, 1.5]]), torch.tensor([[0.0, 0.0, 4.0, 2.0]])
    pairs = BoxPairs(first, second, MIN_SIZE)
    assert pairs.iou.item() == 0.25
    expected = torch.tensor([[0.125, 0.25, -0.125, -0.25]])
    assert_close(gradient_of(pairs), expected)
    assert_close(gradient_of(pairs, iou=torch.tensor([-3.0])), 3 * expected)


def measures_of(first, second):
    """What `BoxPairs` measures, by the plain formulas."""
    lengths = Lengths(first, second, MIN_SIZE)
    names = ("iou", "hull_area", "sides", "hull_sides", "offset")
    return {name: getattr(lengths, name) for name in names} | {"union": lengths.shared_and_union[1]}


def tying_pairs(kind):
    first, second = grid_boxes(2000, 0), grid_boxes(2000, 1)
    upright = (first[:, 2:] > first[:, :2]).all(1) & (second[:, 2:] > second[:, :2]).all(1)
    return (first[upright], second[upright]) if kind == "upright" else (first, second)


@pytest.mark.parametrize("kind", ["any", "upright"])
@pytest.mark.parametrize("name", ["iou", "union", "hull_area", "sides", "hull_sides", "offset"])
def test_each_argument_is_the_gradient_for_the_measure_of_its_name(name, kind):
    """The plain form of `BoxPairs.gradient`: the loss is any sum of measures, and -IoU or not."""
    first, second = tying_pairs(kind)
    measures = measures_of(first.requires_grad_(), second)
    pairs = BoxPairs(first.detach(), second, MIN_SIZE)
    measured = getattr(pairs, name)
    assert_close(measured.reshape(measures[name].shape), measures[name].detach())

    by_measure = torch.randn(measures[name].shape, dtype=torch.float64)
    loss = (by_measure * measures[name]).sum() - (measures["iou"].sum() if name != "iou" else 0)
    (expected,) = torch.autograd.grad(loss, first)
    by_measure = by_measure.reshape(measured.shape)
    assert_close(gradient_of(pairs, **{name: by_measure}), expected)
    if by_measure.ndim > 2:
        half = Product(by_measure, torch.full((len(first),), 2.0, dtype=torch.float64), 0.5)
        assert_close(gradient_of(pairs, **{name: half}), expected)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
@pytest.mark.parametrize("kind", ["any", "upright"])
def test_inverted_boxes_are_turned_as_by_autograd(kind, scale):
    first, second = (boxes * scale for boxes in tying_pairs(kind))
    pairs = BoxPairs(first, second, MIN_SIZE * scale)
    found = gradient_of(pairs, turning=True) - gradient_of(pairs)
    first.requires_grad_()
    value = Lengths(first, second, MIN_SIZE * scale).turning
    assert (value == 0).all()
    (expected,) = torch.autograd.grad(value.sum(), first)
    assert_close(found, expected)
    assert expected.any() == (kind == "any")
    assert expected.abs().max() <= 0.5 / (MIN_SIZE * scale)


@pytest.mark.parametrize("kind", ["any", "upright"])
def test_the_order_of_the_calls_does_not_matter(kind):
    first, second = tying_pairs(kind)
    pairs, others = BoxPairs(first, second, MIN_SIZE), BoxPairs(first, second, MIN_SIZE)
    gradient = gradient_of(pairs)
    distance, aspect = CentreDistance(pairs), AspectDifference(pairs)
    expected_aspect, expected = AspectDifference(others), CentreDistance(others)
    for found, other in ((distance, expected), (aspect, expected_aspect)):
        assert torch.equal(found.value, other.value)
    for one, other in (
        (distance.by_offset, expected.by_offset),
        (distance.by_hull_sides, expected.by_hull_sides),
        (aspect.by_sides, expected_aspect.by_sides),
    ):
        assert torch.equal(one.one * one.other, other.one * other.other)
    assert torch.equal(gradient_of(pairs), gradient)
    assert torch.equal(gradient_of(others), gradient)
