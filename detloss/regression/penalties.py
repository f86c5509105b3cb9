"""Penalties that several losses take, each plain and with its gradient."""

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
