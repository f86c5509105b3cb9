"""Penalties that several losses take, each plain and with its gradient."""

import math

import torch
from torch import Tensor

from detloss.boxes.lengths import Lengths, squared_length
from detloss.kernels.box_pairs import BoxPairs, Penalty, Product, squared_length_


def centre_distance(pairs: Lengths) -> Tensor:
    """Squared distance of the centres over the squared diagonal of the hull, in [0, 1)."""
    return squared_length(pairs.offset) / squared_length(pairs.hull_sides)


def centre_distance_with_gradient(pairs: BoxPairs) -> Penalty:
    """`centre_distance` in few passes."""
    double_offset = pairs.double_offset
    per_diagonal = squared_length_(pairs.hull_sides).reciprocal_()
    value = squared_length_(double_offset).mul_(per_diagonal).mul_(0.25)
    return Penalty(  # d x^2 is 2 x dx, above as below the line
        value,
        offset=Product(double_offset, per_diagonal),
        hull_sides=Product(pairs.hull_sides, value * per_diagonal, -2),
    )


def side_cost(pairs: Lengths, theta: float, weights: Tensor | float = 1.0) -> Tensor:
    """``(1 - exp(-r))^theta`` of both sides, summed: r the difference over the longer one.

    Args:
        pairs: The boxes.
        theta: The power, at least 1.
        weights: Factors of r, (2, ...) or a number.
    """
    longer = torch.maximum(pairs.sides, pairs.target_sides)
    share = weights * (pairs.sides - pairs.target_sides).abs() / longer
    width, height = (1 - torch.exp(-share)).pow(theta).unbind()
    return width + height


def side_cost_with_gradient(pairs: BoxPairs, theta: float) -> Penalty:
    """Half of `side_cost`, in few passes."""
    difference = pairs.sides - pairs.target_sides
    per_longer = torch.maximum(pairs.sides, pairs.target_sides).reciprocal_()
    sign = difference.sign()
    share = difference.abs_().mul_(per_longer)
    falling = (share * -math.log2(math.e)).exp2_()
    cost = 1 - falling
    slope = cost.pow(theta - 1)
    # d share / d side is -1 / true side below the true side and (1 - share) / side above it
    by_sides = torch.addcmul(share, sign, 2 - share, value=-1).mul_(per_longer)
    width, height = cost.mul_(slope).unbind()
    value = (width + height).mul_(0.5)
    return Penalty(value, sides=Product(by_sides, slope.mul_(falling), -theta / 4))
