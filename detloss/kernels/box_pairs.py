"""The lengths of pairs of boxes and what a loss is for them, with the gradient worked by hand.

`BoxPairs` measures pairs of boxes and carries a loss's gradient back to the first box of each pair.
It gives what autograd gives through `detloss.boxes.lengths`, at ties of coordinates too, in a
third of the passes over memory.

A box is an interval along x and one along y, so every length is (2, N): all widths, then all
heights. The first end of an interval is kept with its sign turned. Then both ends are alike: the
length of an interval is their sum, the hull has the larger of two ends, and the intersection the
smaller one.

Many pairs are cut into parts, one for each core: N stands for two axes, (parts, pairs of a part),
see `detloss.kernels.cores`.

Some boxes need more than the plain gradient: a short side is lengthened, and the gradient of an
inverted one goes to its other corner. On a CPU the pairs are looked at once; where there are no
such boxes, these steps are left out.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from detloss.kernels.cores import Parts
from detloss.tensors import sync_is_free


class Product(NamedTuple):
    """``factor * one * other``, not multiplied yet: what adds it multiplies in the same pass."""

    one: Tensor
    other: Tensor
    factor: float = 1.0


class Penalty(NamedTuple):
    """A penalty of pairs of boxes, with its gradient for the lengths that it is made of.

    Lengths depend on each other: an area on its sides. A gradient here is that for one length
    alone; what comes through another is added by `BoxPairs.gradient`.

    Attributes:
        value: The penalty, (N,), or one for each axis, (2, N).
        union: d value / d `union`, (N,); this and all that follow are None for 0.
        hull_area: d value / d `hull_area`, (N,).
        sides: d value / d `sides`, (2, N).
        hull_sides: d value / d `hull_sides`, (2, N).
        offset: d value / d `offset`, (2, N).
        overhang: d value / d `overhang`, (2, 2, N).
    """

    value: Tensor | Product
    union: Tensor | None = None
    hull_area: Tensor | None = None
    sides: Tensor | Product | None = None
    hull_sides: Tensor | Product | None = None
    offset: Tensor | Product | None = None
    overhang: Tensor | Product | None = None

    def add_to(self, loss: Tensor) -> Tensor:
        """`loss` (N,) and the penalty, that of both axes."""
        if isinstance(self.value, Product):
            one, other, factor = self.value
            return torch.addcmul(loss, one, other, value=factor)
        if self.value.ndim == loss.ndim:
            return loss + self.value
        x, y = self.value.unbind()
        return (loss + x).add_(y)

    def through(
        self, function: Callable[[Tensor], Tensor], derivative: Callable[[Tensor], Tensor]
    ) -> "Penalty":
        """A function of the penalty, of each axis on its own."""
        value = self.value
        if isinstance(value, Product):
            value = value.one * value.other * value.factor
        slope = derivative(value)
        gradients = [_times(gradient, slope) for gradient in self[1:]]
        return Penalty(function(value), *gradients)  # type: ignore[arg-type]


class BoxPairs:
    """`Lengths` of pairs of boxes, and the gradient of a loss for the first box of each.

    No method changes what another one returns.

    Args:
        first: Boxes (pairs, 4), such as predictions.
        second: Boxes (pairs, 4), such as targets.
        min_size: The least side of a second box, see `detloss.boxes.lengths.least_side`.

    Attributes:
        sides: Width and height of the first boxes, (2, N), at least 0.
        target_sides: Those of the second boxes, at least `min_size`.
        shared_sides: Those of the intersection.
        hull_sides: Those of the smallest box around both.
        hull_area: Area of that box, (N,).
        union: Area of the union, (N,).
        iou: Intersection over union, (N,).
        distance: ``1 - iou``, (N,).
        overhang: How far the second box reaches beyond the first, (2, 2, N): at its first ends,
            then at its last.
    """

    def __init__(self, first: Tensor, second: Tensor, min_size: float) -> None:
        self.min_size = min_size
        self._parts = Parts(len(first), is_cpu=first.is_cpu)
        # four boxes x two ends x two axes; `cat` takes an eighth of a transposed copy's time
        memory = first.new_empty(self._parts.number, 16, self._parts.size).transpose(0, 1)
        torch.cat([self._parts.split(first), self._parts.split(second)], out=memory[8:])
        self._measure_sides(memory.view(4, 2, 2, *memory.shape[1:]))
        self._measure_areas()

    def _measure_sides(self, ends: Tensor) -> None:
        """All sides, from `ends` (4 boxes, 2 ends, 2 axes, N).

        The boxes are hull, intersection, first and second; the first two are still to be filled in.
        """
        hull, intersection, first, second = ends.unbind()
        begin, end = ends.unbind(1)  # (4, 2, N) each
        signed = end[2:] - begin[2:]
        self._signed: Tensor | None = None  # both boxes' sides, (2, 2, N), < 0 where inverted
        if not _all_above(signed, self.min_size):
            self._signed = signed
            torch.maximum(begin[2:], end[2:], out=end[2:])
        begin[2:].neg_()
        torch.maximum(first, second, out=hull)
        torch.minimum(first, second, out=intersection)
        self._sides = begin + end
        self.hull_sides, self.shared_sides, self.sides, self.target_sides = self._sides.unbind()
        if self._signed is not None:  # a short side of a second box, and the hull, are lengthened
            self._sides[::3].add_((self.min_size - self.target_sides).clamp_(min=0))
        self._meets = self.shared_sides.sign()
        self.shared_sides.clamp_(min=0)
        self.overhang = second.sub_(first)
        self._scratch = hull, intersection  # whose ends are done with, (2, 2, N) each

    def _measure_areas(self) -> None:
        """The areas and the IoU."""
        width, height = self._sides.unbind(1)
        self.hull_area, shared, area, target_area = (width * height).unbind()
        self.union = area.add_(target_area).sub_(shared)
        self._per_union = self.union.reciprocal()
        self.iou = shared.div_(self.union)
        self.distance = 1 - self.iou

    @property
    def offset(self) -> Tensor:
        """From the centre of the second box to that of the first, (2, N)."""
        return self.double_offset.mul_(0.5)

    @property
    def double_offset(self) -> Tensor:
        """Twice that: from the sum of the second box's corners to that of the first's, (2, N)."""
        begin, end = self.overhang.unbind()
        return begin - end

    @property
    def any_inverted(self) -> Tensor | None:
        """Whether a side of either box is inverted, (N,); None where none is."""
        return None if self._signed is None else self._signed.amin((0, 1)) < 0

    def sides_with_raised_height(self) -> tuple[Tensor, Tensor]:
        """Widths, and heights of ``min_size - width`` at least; each (2, N), of both boxes."""
        width, height = self._sides[2:].unbind(1)
        if self._signed is None:
            return width, height
        return width, torch.maximum(height, self.min_size - width)

    def rows(self, values: Tensor) -> Tensor:
        """`values` (N,), one for each pair, as (pairs,)."""
        return self._parts.join(values)

    def lengths_of(self, rows: Tensor) -> Tensor:
        """`rows` (pairs, 2), such as the sides of each pair's image, as (2, N)."""
        return self._parts.split(rows)

    def gradient(
        self,
        out: Tensor | None,
        penalties: Sequence[Penalty] = (),
        *,
        iou: Tensor | None = None,
        gain: Tensor | None = None,
    ) -> None:
        """Writes the gradient of a loss for the first boxes over `out`.

        Args:
            out: (pairs, 4), or None to do nothing.
            penalties: What the loss is the sum of, beside a function of `iou`.
            iou: d loss / d `iou`, (N,); None for -1, as of ``1 - iou``.
            gain: What multiplies all that, a constant (N,). `Lengths.turning` comes on top.
        """
        if out is None:
            return
        # with their signs turned: what comes to the shared area through the IoU, and all of it
        through_shared = self._per_union if iou is None else -iou * self._per_union
        union = _sum(penalty.union for penalty in penalties)
        if union is None:
            by_union = self.iou * through_shared
        else:
            by_union = torch.addcmul(union, self.iou, through_shared)
        by_shared = by_union + through_shared
        # The plain form, for one end of the first boxes, with s = sign(second's end - first's end):
        # the intersection has the smaller end, the hull the larger one, and at a tie either is half
        # of the first box's. A shared side is maximum(what its ends sum to, 0), hence its step: 1
        # where positive, 1/2 at 0.
        #   by_end = by_sides
        #          - by_shared_sides * step(shared_sides) * (1 + s) / 2
        #          + by_hull_sides * (1 - s) / 2
        # The lines below collect what is free of s in `by_end`, and what -4 s multiplies in
        # `by_sign`. tests/kernels/test_box_pairs.py holds them against autograd.
        hull_area = _sum(penalty.hull_area for penalty in penalties)
        first = 1 if hull_area is None else 0
        other_sides = self._sides[first:3].flip(1)  # a copy: of an area, the derivative for a side
        *hull, by_shared_sides, by_end = other_sides.unbind()
        by_shared_sides.mul_(by_shared)
        by_end.mul_(by_union)
        by_sign = by_shared_sides.addcmul_(by_shared_sides, self._meets)  # 1 + sign is 2 step
        by_end.sub_(by_sign, alpha=0.25)
        by_hull_sides = [penalty.hull_sides for penalty in penalties]
        if hull_area is not None:
            by_hull_sides.append(Product(hull[0], hull_area))
        for penalty in penalties:
            _add_(by_end, penalty.sides)
        for gradient in by_hull_sides:
            _add_(by_end, gradient, 0.5)
            _add_(by_sign, gradient, 2)
        ends, sign = self._scratch
        torch.sign(self.overhang, out=sign)
        torch.addcmul(by_end, sign, by_sign, value=-0.25, out=ends)
        self._write_corners(out, ends, penalties, gain)

    def _write_corners(
        self, out: Tensor, ends: Tensor, penalties: Sequence[Penalty], gain: Tensor | None
    ) -> None:
        """Writes the gradient of the ends (2, 2, N), overwritten, as that of the corners."""
        for penalty in penalties:
            _add_(ends, penalty.overhang, -1)
        begin, end = ends.unbind()
        begin.neg_()
        for penalty in penalties:
            _add_(ends, penalty.offset, 0.5)  # a centre is the mean of two corners
        if gain is not None:
            ends.mul_(gain)
        if self._signed is not None:  # the last corner is maximum(first, last)
            # of d / (d + s) / 2 the derivative is s / (d + s)^2 / 2, d = first - last
            signed = self._signed[0]
            reach = self.target_sides - signed.clamp(max=0)
            moved = torch.addcdiv(end, self.target_sides / reach, reach, value=0.5)
            moved.addcmul_(moved, signed.sign(), value=-1)  # 1 - sign is 2 step
            begin.add_(moved, alpha=0.5)
            end.sub_(moved, alpha=0.5)
        self._parts.write(out, ends.flatten(0, 1))


def _add_(total: Tensor, values: Tensor | Product | None, factor: float = 1.0) -> None:
    """Adds so many times `values` to `total`."""
    if isinstance(values, Product):
        total.addcmul_(values.one, values.other, value=factor * values.factor)
    elif values is not None:
        total.add_(values, alpha=factor)


def _times(gradient: Tensor | Product | None, slope: Tensor) -> Tensor | Product | None:
    """What of a gradient is left behind a function with that slope."""
    if isinstance(gradient, Product):
        return gradient._replace(other=gradient.other * slope)
    return None if gradient is None else gradient * slope


def _sum(values: Iterable[Tensor | None]) -> Tensor | None:
    """The sum of those that are there."""
    present = [value for value in values if value is not None]
    return sum(present[1:], present[0]) if present else None


def _all_above(values: Tensor, floor: float) -> bool:
    """Whether all are; False also where looking needs a host sync."""
    return sync_is_free(values) and values.numel() > 0 and values.amin().item() > floor


def squared_length_(lengths: Tensor) -> Tensor:
    """``x^2 + y^2`` of (2, N); to stack the squares and sum them takes four times as long."""
    x, y = lengths.unbind()
    return (x * x).addcmul_(y, y)
