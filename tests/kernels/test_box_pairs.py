"""Gradients worked by hand against autograd through the lengths, ties included."""

import pytest
import torch
from torch.testing import assert_close

from detloss.boxes.lengths import Lengths
from detloss.kernels import cores
from detloss.kernels.box_pairs import BoxPairs, Penalty, Product

MIN_SIZE = 0.5
"""Between the sides of flat boxes on the grid, 0, and of the others."""


def tying_pairs(kind):
    first, second = grid_boxes(3000, 0), grid_boxes(3000, 1)
    upright = (first[:, 2:] > first[:, :2]).all(1) & (second[:, 2:] > second[:, :2]).all(1)
    return (first[upright], second[upright]) if kind == "upright" else (first, second)


def grid_boxes(count, seed):
    """Corners on a 4 x 4 grid: half of the pairs tie somewhere; flat and inverted ones too."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 4, (count, 4), generator=generator).double()


def penalty(pairs):
    """One of every length, and none at all of its gradients 0."""
    return (
        pairs.hull_area
        + 2 * pairs.sides.square().sum(0)
        + 3 * pairs.hull_sides.square().sum(0)
        + 4 * pairs.offset.square().sum(0)
        + 5 * sum(overhang.square().sum(0) for overhang in pairs.overhang)
    )


def penalties(pairs):
    """`penalty` in two, and its gradients, some of them as products."""
    ones = torch.ones_like(pairs.iou)
    return [
        Penalty(
            penalty(pairs),
            hull_area=ones,
            sides=Product(pairs.sides, ones, 4),
            offset=8 * pairs.offset,
        ),
        Penalty(
            0 * ones,
            hull_sides=Product(pairs.hull_sides, 2 * ones, 3),
            overhang=10 * pairs.overhang,
        ),
    ]


def autograd(first, second, min_size):
    first = first.clone().requires_grad_()
    pairs = Lengths(first, second, min_size)
    losses = 1 - pairs.iou + penalty(pairs) + pairs.turning
    (gradient,) = torch.autograd.grad(losses.sum(), first)
    return losses.detach(), gradient


def gradient_of(pairs, *penalties, **options):
    out = torch.empty(len(pairs.rows(pairs.iou)), 4, dtype=pairs.iou.dtype)
    pairs.gradient(out, penalties, **options)
    return out


def by_hand(first, second, min_size):
    pairs = BoxPairs(first, second, min_size)
    loss = pairs.distance
    for one in penalties(pairs):
        loss = one.add_to(loss)
    return pairs.rows(loss), gradient_of(pairs, *penalties(pairs))


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
@pytest.mark.parametrize("kind", ["any", "upright"])
def test_equals_autograd_on_boxes_that_tie(scale, kind):
    first, second = (boxes * scale for boxes in tying_pairs(kind))
    assert len(first) > 40
    loss, gradient = by_hand(first, second, MIN_SIZE * scale)
    expected, expected_gradient = autograd(first, second, MIN_SIZE * scale)
    assert_close(loss, expected)
    assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("cores_there", [2, 3, 7])
@pytest.mark.parametrize("count", [1000, 4095, 4200, 4201])
def test_parts_for_several_cores(cores_there, count, monkeypatch):
    """Equal parts, or pairs that are in two of them; fewer parts than cores where pairs are few."""
    first, second = grid_boxes(count, 0), grid_boxes(count, 1)
    expected, expected_gradient = by_hand(first, second, MIN_SIZE)
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores_there)
    monkeypatch.setattr(cores, "LEAST_PART", 600)
    loss, gradient = by_hand(first, second, MIN_SIZE)
    assert_close(loss, expected)
    assert_close(gradient, expected_gradient)
    assert len(BoxPairs(first, second, MIN_SIZE).iou) == min(cores_there, count // 600)


def test_worked_by_hand():
    """Sides 2 x 1 inside a target of area 8: IoU 1/4; wider by dx, 1 - IoU falls by 1/8 dx."""
    first, second = torch.tensor([[1.0, 0.5, 3.0, 1.5]]), torch.tensor([[0.0, 0.0, 4.0, 2.0]])
    pairs = BoxPairs(first, second, MIN_SIZE)
    assert pairs.iou.item() == 0.25
    expected = torch.tensor([[0.125, 0.25, -0.125, -0.25]])
    assert_close(gradient_of(pairs), expected)
    assert_close(gradient_of(pairs, iou=torch.tensor([-3.0])), 3 * expected)


@pytest.mark.parametrize("kind", ["any", "upright"])
@pytest.mark.parametrize(
    "name", ["iou", "union", "hull_area", "sides", "hull_sides", "offset", "overhang"]
)
def test_each_gradient_is_that_for_the_length_of_its_name(name, kind):
    """The plain form of `BoxPairs.gradient`: the loss is a sum of lengths, and -IoU or not."""
    first, second = tying_pairs(kind)
    lengths = Lengths(first.requires_grad_(), second, MIN_SIZE)
    measure = lengths.shared_and_union[1] if name == "union" else getattr(lengths, name)
    if name == "overhang":
        measure = torch.stack(measure)
    pairs = BoxPairs(first.detach(), second, MIN_SIZE)
    measured = getattr(pairs, name)
    assert_close(measured.reshape(measure.shape), measure.detach())

    by_measure = torch.randn(measure.shape, dtype=torch.float64)
    turning = lengths.turning.sum()
    loss = (by_measure * measure).sum() - (lengths.iou.sum() if name != "iou" else 0) + turning
    (expected,) = torch.autograd.grad(loss, first)
    by_measure = by_measure.reshape(measured.shape)
    if name == "iou":
        assert_close(gradient_of(pairs, iou=by_measure), expected)
        return
    whole = Penalty(torch.zeros_like(pairs.iou), **{name: by_measure})
    assert_close(gradient_of(pairs, whole), expected)
    half = Penalty(whole.value, **{name: by_measure / 2})
    assert_close(gradient_of(pairs, half, half), expected)


@pytest.mark.parametrize("kind", ["any", "upright"])
def test_a_gain_multiplies_all_but_what_turns(kind):
    first, second = tying_pairs(kind)
    gain = torch.linspace(0, 2, len(first), dtype=torch.float64)
    expected_first = first.clone().requires_grad_()
    lengths = Lengths(expected_first, second, MIN_SIZE)
    loss = gain * (1 - lengths.iou + penalty(lengths)) + lengths.turning
    (expected,) = torch.autograd.grad(loss.sum(), expected_first)
    pairs = BoxPairs(first, second, MIN_SIZE)
    found = gradient_of(pairs, *penalties(pairs), gain=gain.reshape(pairs.iou.shape))
    assert_close(found, expected)


def test_a_function_of_a_penalty():
    """Of x^2, the value squared and the gradient times 2 x; of each axis on its own."""
    value = torch.tensor([[1.0, 3.0], [2.0, 4.0]], dtype=torch.float64)
    one = Penalty(value, sides=value, hull_sides=Product(value, value, 0.5))
    found = one.through(torch.square, lambda x: 2 * x)
    assert_close(found.value, value**2)
    assert_close(found.sides, 2 * value**2)
    assert_close(found.hull_sides.one * found.hull_sides.other, 2 * value**3)
    assert found.hull_sides.factor == 0.5
    assert found.offset is None
    assert found.add_to(torch.ones(2)).tolist() == [1 + 1 + 4, 1 + 9 + 16]
    product = Penalty(Product(value[0], value[1], 2.0))
    assert product.add_to(torch.ones(2, dtype=torch.float64)).tolist() == [5, 25]
    assert product.through(torch.square, torch.ones_like).value.tolist() == [16, 24**2]


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
@pytest.mark.parametrize("kind", ["any", "upright"])
def test_what_turns_inverted_boxes_is_bounded(kind, scale):
    first, second = (boxes * scale for boxes in tying_pairs(kind))
    pairs = BoxPairs(first, second, MIN_SIZE * scale)
    nothing = torch.zeros_like(pairs.iou)
    found = gradient_of(pairs, iou=nothing)
    assert found.any() == (kind == "any")
    assert found.abs().max() <= 0.5 / (MIN_SIZE * scale)
    inverted = pairs.any_inverted
    assert (inverted is not None) == (kind == "any")
    if inverted is not None:
        expected = (first[:, 2:] < first[:, :2]) | (second[:, 2:] < second[:, :2])
        assert torch.equal(pairs.rows(inverted), expected.any(1))


@pytest.mark.parametrize("kind", ["any", "upright"])
def test_the_order_of_the_calls_does_not_matter(kind):
    first, second = tying_pairs(kind)
    pairs, others = BoxPairs(first, second, MIN_SIZE), BoxPairs(first, second, MIN_SIZE)
    gradient = gradient_of(pairs)
    offset, (widths, heights) = pairs.offset, pairs.sides_with_raised_height()
    raised = others.sides_with_raised_height()
    assert torch.equal(widths, raised[0])
    assert torch.equal(heights, raised[1])
    assert torch.equal(offset, others.offset)
    assert torch.equal(gradient_of(pairs), gradient)
    assert torch.equal(gradient_of(others), gradient)
