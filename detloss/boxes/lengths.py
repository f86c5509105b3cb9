"""Pairs of boxes as lengths along x and y: what overlaps and losses on boxes are made of."""

import math

import torch
from torch import Tensor

TINY = 2.0**-62
"""The least side of a target where no loss asks for a longer one: it only makes 0 / 0 be 0.

Its square, an area, is just above the least float32.
"""
LEAST_EPS = 1e-16
"""The least `eps` of a loss: its square, of an area in a derivative, is still a float32."""


def least_side(eps: float) -> float:
    """``sqrt(eps)``, the `min_size` of a loss."""
    return math.sqrt(max(eps, LEAST_EPS))


class Lengths:
    """The lengths of pairs of boxes that broadcast, each (2, ...): along x, then along y.

    An inverted side collapses onto its first corner. So an inverted box is a flat one: it has no
    area, but a hull still has to contain it.

    A side of a second box that is shorter than `min_size` counts as that long. It is lengthened
    away from the first box: the hull grows by as much, and what both share does not. So every
    length that a measure divides by is at least `min_size`, and its gradient is bounded by about
    ``1 / min_size``, without a floor in any formula.

    At a tie of coordinates each gets half of the gradient.

    Args:
        first: Boxes (..., 4) as (x1, y1, x2, y2), such as predictions, floating point.
        second: Boxes (..., 4), such as targets.
        min_size: The least side of a second box, see `least_side`.

    Attributes:
        sides: Width and height of the first boxes, at least 0.
        target_sides: Those of the second boxes, at least `min_size`.
        inverted: How far each side of the first boxes is inverted, negative where it is not.
    """

    def __init__(self, first: Tensor, second: Tensor, min_size: float = TINY) -> None:
        self.min_size = min_size
        self._ends, self.inverted = _ends(first)
        self._target_ends, self._target_inverted = _ends(second)
        self.sides = self._ends[1] - self._ends[0]
        self._true_sides = self._target_ends[1] - self._target_ends[0]
        self._lengthened = (min_size - self._true_sides).clamp(min=0)
        self.target_sides = self._true_sides + self._lengthened

    @property
    def any_inverted(self) -> Tensor:
        """(...,), whether a side of either box is inverted."""
        x, y = torch.maximum(self.inverted, self._target_inverted).unbind()
        return torch.maximum(x, y) > 0

    @property
    def overhang(self) -> tuple[Tensor, Tensor]:
        """How far the second box reaches beyond the first: at its first ends, and at its last."""
        (begin, end), (target_begin, target_end) = self._ends, self._target_ends
        return begin - target_begin, target_end - end

    @property
    def offset(self) -> Tensor:
        """From the centre of the second box to that of the first.

        The differences come first: a sum of corners would round at the size of the coordinates.
        """
        begin, end = self.overhang
        return (begin - end) / 2

    @property
    def shared_sides(self) -> Tensor:
        """Width and height of the intersection.

        ``maximum`` rather than ``clamp``: at a tie it passes half of the gradient in every version
        of PyTorch, so that a box which just touches, or is flat, can still grow.
        """
        (begin, end), (target_begin, target_end) = self._ends, self._target_ends
        sides = torch.minimum(end, target_end) - torch.maximum(begin, target_begin)
        return torch.maximum(sides, sides.new_zeros(()))

    @property
    def inner_ends(self) -> tuple[Tensor, Tensor]:
        """From the hull's first corner to the larger first and to the smaller last ends.

        Where the boxes overlap these are the ends of the intersection, else those of the gap.
        """
        (begin, end), (target_begin, target_end) = self._ends, self._target_ends
        start = torch.minimum(begin, target_begin)
        return torch.maximum(begin, target_begin) - start, torch.minimum(end, target_end) - start

    @property
    def hull_sides(self) -> Tensor:
        """Width and height of the smallest box around both."""
        (begin, end), (target_begin, target_end) = self._ends, self._target_ends
        sides = torch.maximum(end, target_end) - torch.minimum(begin, target_begin)
        return sides + self._lengthened

    @property
    def hull_area(self) -> Tensor:
        """(...,), the area of that box."""
        return product(self.hull_sides)

    @property
    def shared_and_union(self) -> tuple[Tensor, Tensor]:
        """(...,) and (...,), the areas of the intersection and of the union."""
        shared = product(self.shared_sides)
        return shared, product(self.sides) + product(self.target_sides) - shared

    @property
    def iou(self) -> Tensor:
        """(...,), intersection over union in [0, 1]; 0 where a box is empty."""
        shared, union = self.shared_and_union
        return shared / union

    def scaled_iou(self, ratio: float) -> Tensor:
        """(...,), `iou` of the boxes with all sides times `ratio`, each about its own centre.

        Two intervals share the shorter one, or half of both less the distance of their centres.
        """
        sides, true_sides = ratio * self.sides, ratio * self._true_sides
        reach = (sides + true_sides) / 2 - self.offset.abs()
        inside = torch.minimum(torch.minimum(sides, true_sides), reach)
        return self._iou_of(sides, inside, ratio * self.target_sides)

    def between_iou(self, share: Tensor | float) -> Tensor:
        """(...,), `iou` of the second box and one between both.

        It lies at that share of the way to the second, a number or (...,).
        """
        first, last = ((1 - share) * overhang for overhang in self.overhang)
        sides = self._true_sides - (first + last)
        nothing = first.new_zeros(())
        missed = torch.maximum(first, nothing) + torch.maximum(last, nothing)
        return self._iou_of(sides, self._true_sides - missed, self.target_sides)

    def _iou_of(self, sides: Tensor, shared_sides: Tensor, target_sides: Tensor) -> Tensor:
        """IoU of boxes with those sides; a shared side below 0 is none."""
        shared = product(torch.maximum(shared_sides, shared_sides.new_zeros(())))
        return shared / (product(sides) + product(target_sides) - shared)

    @property
    def turning(self) -> Tensor:
        """(...,) zeros with a gradient that turns inverted sides of first boxes round.

        In a measure an inverted side has collapsed, so its second corner has no gradient, and
        inside the second box the first one has none either: a predicted box would stay inverted
        for ever. The gradient here is that of ``d / (d + s) / 2`` for each axis, along x ``d =
        max(x1 - x2, 0)`` of the first box and s the width of the second. It is at most
        ``1 / (2 s)``. The value is left out, so that a loss of an inverted box is still that of an
        empty one.
        """
        depth = torch.maximum(self.inverted, self.inverted.new_zeros(()))
        x, y = (depth / (depth + self.target_sides)).unbind()
        inverted = (x + y) / 2
        return inverted - inverted.detach()


def product(sides: Tensor) -> Tensor:
    """``x y`` of lengths (2, ...)."""
    x, y = sides.unbind()
    return x * y


def squared_length(lengths: Tensor) -> Tensor:
    """``x^2 + y^2`` of lengths (2, ...)."""
    x, y = lengths.unbind()
    return x * x + y * y


def _ends(boxes: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """First and last corner of boxes (..., 4), each (2, ...); how far a side is inverted."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    begin, end = torch.stack([x1, y1]), torch.stack([x2, y2])
    return (begin, torch.maximum(begin, end)), begin - end
