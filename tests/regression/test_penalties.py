"""Penalties that several losses take, plain and with their gradient."""

import pytest
import torch
from boxgen import box_pairs
from hypothesis import given
from torch.testing import assert_close

from detloss.boxes.lengths import Lengths
from detloss.kernels.box_pairs import BoxPairs
from detloss.regression.penalties import centre_distance, centre_distance_with_gradient


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param([0.0, 0, 1, 1], 0.0, id="identical"),
        pytest.param([1.0, 1, 2, 2], 1 / 4, id="corner to corner: d2 2 over c2 8"),
        pytest.param([3.0, 0, 4, 1], 9 / 17, id="beside: d 3, hull 4 x 1"),
        pytest.param([0.25, 0.25, 0.75, 0.75], 0.0, id="one centre"),
    ],
)
def test_centre_distance_worked_by_hand(box, expected):
    box, unit = torch.tensor([box]), torch.tensor([[0.0, 0, 1, 1]])
    assert_close(centre_distance(Lengths(box, unit)), torch.tensor([expected]))
    fused = centre_distance_with_gradient(BoxPairs(box, unit, 1e-3))
    assert_close(fused.value.flatten(), torch.tensor([expected]))


@given(box_pairs())
def test_the_gradients_are_those_of_the_value(pair):
    pairs = BoxPairs(*pair, 1e-3)
    found = centre_distance_with_gradient(pairs)
    offset = pairs.offset.requires_grad_()
    hull_sides = pairs.hull_sides.clone().requires_grad_()
    (offset.square().sum(0) / hull_sides.square().sum(0)).sum().backward()
    for gradient, expected in ((found.offset, offset), (found.hull_sides, hull_sides)):
        assert_close(gradient.one * gradient.other * gradient.factor, expected.grad)
