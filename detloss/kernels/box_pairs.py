"""The lengths of pairs of boxes and what a loss is for them, with the gradient worked by hand.

`BoxPairs` measures pairs of boxes and carries a loss's gradient back to the first box of each pair.
It gives what autograd gives through `detloss.boxes.lengths`, at ties of coordinates too, in a
third of the passes over memory.

A box is an interval along x and one along y, so every length is (2, N): all widths, then all
heights. The first end of an interval is kept with its sign turned. Then both ends are alike: the
length of an interval is their sum, the hull has the larger of two ends, and the intersection the
smaller one.

Many pairs are cut into parts, one for each core: N stands for two axes, (parts, pairs of a part).
PyTorch gives each core an equal share of the values, in the order of the memory. All that is
computed for a part lies together there, so the same core works on a part from the first operator to
the last, and finds what it needs in its own cache.

Some boxes need more than the plain gradient: a short side is lengthened, and the gradient of an
inverted one goes to its other corner. On a CPU the pairs are looked at once; where there are no
such boxes, these steps are left out.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from detloss.tensors import sync_is_free

LEAST_PART = 4096
"""Pairs in a part at least. A tensor of four values a pair is then one that PyTorch computes on
several cores; it leaves one of under 32,768 values to one core.
"""


class Parts:
    """A number of pairs as parts of equal size, one for each core.

    Where the pairs cannot be divided so, the last part begins before the one ahead of it ends, and
    the pairs between are in both.

    Attributes:
        number: How many parts.
        size: Pairs in each.
    """

    def __init__(self, count: int, *, is_cpu: bool) -> None:
        cores = torch.get_num_threads() if is_cpu else 1
        self.number = max(min(cores, count // LEAST_PART), 1)
        self._count = count
        self._stride = max(count // self.number, 1)  # from the beginning of a part to the next
        self.size = count - (self.number - 1) * self._stride

    def split(self, rows: Tensor) -> Tensor:
        """A view of `rows` (pairs, ...) as (..., parts, pairs of a part)."""
        parts: Tensor = rows.unfold(0, self.size, self._stride)
        return parts.transpose(0, -2)

    def write(self, rows: Tensor, values: Tensor) -> None:
        """Writes `values` (..., parts, pairs of a part) over `rows` (pairs, ...)."""
        parts = self.split(rows)
        if self.size > self._stride:
            # a pair in two parts is written once: its two values may differ in the last bit
            parts[..., -1, self._stride :].copy_(values[..., -1, self._stride :])
            parts, values = parts[..., : self._stride], values[..., : self._stride]
        parts.copy_(values)

    def join(self, values: Tensor) -> Tensor:
        """`values` (parts, pairs of a part) as (pairs,)."""
        if self.size == self._stride:
            return values.flatten()
        rows = values.new_empty(self._count)
        self.write(rows, values)
        return rows


class Product(NamedTuple):
    """``factor * one * other``, not multiplied yet: what adds it multiplies in the same pass."""

    one: Tensor
    other: Tensor
    factor: float = 1.0


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
        self._signed: Tensor | None = None  # sides of the first boxes, (2, N), < 0 where inverted
        if not _all_above(signed, self.min_size):
            self._signed = signed[0]
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
        self._between = second.sub_(first)  # from the first box's ends to the second's, (2, 2, N)
        self._scratch = hull, intersection  # whose ends are done with, (2, 2, N) each

    def _measure_areas(self) -> None:
        """The areas and the IoU."""
        width, height = self._sides.unbind(1)
        self.hull_area, shared, area, target_area = (width * height).unbind()
        self.union = area.add_(target_area).sub_(shared)
        self._per_union = self.union.reciprocal()
        self.iou = shared.div_(self.union)

    @property
    def offset(self) -> Tensor:
        """From the centre of the second box to that of the first, (2, N)."""
        return self.double_offset.mul_(0.5)

    @property
    def double_offset(self) -> Tensor:
        """Twice that: from the sum of the second box's corners to that of the first's, (2, N)."""
        begin, end = self._between.unbind()  # begin with its sign turned
        return begin - end

    def sides_with_raised_height(self) -> tuple[Tensor, Tensor]:
        """Widths, and heights of ``min_size - width`` at least; each (2, N), of both boxes."""
        width, height = self._sides[2:].unbind(1)
        if self._signed is None:
            return width, height
        return width, torch.maximum(height, self.min_size - width)

    def rows(self, values: Tensor) -> Tensor:
        """`values` (N,), one for each pair, as (pairs,)."""
        return self._parts.join(values)

    def gradient(
        self,
        out: Tensor | None,
        *,
        iou: Tensor | None = None,
        union: Tensor | None = None,
        hull_area: Tensor | None = None,
        sides: Tensor | Product | None = None,
        hull_sides: Tensor | Product | None = None,
        offset: Tensor | Product | None = None,
        turning: bool = False,
    ) -> None:
        """Writes d loss / d first box over `out`, from d loss / d measure of each measure.

        Measures depend on each other: the IoU on the union, an area on its sides. An argument is
        the gradient for its measure alone; what comes through another measure is added here.

        Args:
            out: (pairs, 4), or None to do nothing.
            iou: d loss / d `iou`, (N,); None for -1, as of ``1 - iou``.
            union: d loss / d `union`, (N,); this and all that follows None for 0.
            hull_area: d loss / d `hull_area`, (N,).
            sides: d loss / d `sides`, (2, N).
            hull_sides: d loss / d `hull_sides`, (2, N).
            offset: d loss / d `offset`, (2, N).
            turning: Whether the loss adds `Lengths.turning`.
        """
        if out is None:
            return
        # with their signs turned: what comes to the shared area through the IoU, and all of it
        through_shared = self._per_union if iou is None else -iou * self._per_union
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
        first = 1 if hull_area is None else 0
        other_sides = self._sides[first:3].flip(1)  # a copy: of an area, the derivative for a side
        *hull, by_shared_sides, by_end = other_sides.unbind()
        by_shared_sides.mul_(by_shared)
        by_end.mul_(by_union)
        by_sign = by_shared_sides.addcmul_(by_shared_sides, self._meets)  # 1 + sign is 2 step
        by_end.sub_(by_sign, alpha=0.25)
        if sides is not None:
            _add_(by_end, sides)
        through_area = None if hull_area is None else Product(hull[0], hull_area)
        for by_hull in (through_area, hull_sides):
            if by_hull is not None:
                _add_(by_end, by_hull, 0.5)
                _add_(by_sign, by_hull, 2)
        ends, sign = self._scratch
        torch.sign(self._between, out=sign)
        torch.addcmul(by_end, sign, by_sign, value=-0.25, out=ends)
        self._write_corners(out, ends, offset, turning)

    def _write_corners(
        self, out: Tensor, ends: Tensor, offset: Tensor | Product | None, turning: bool
    ) -> None:
        """Writes the gradient of the ends (2, 2, N), overwritten, as that of the corners."""
        begin, end = ends.unbind()
        begin.neg_()
        if offset is not None:  # a centre is the mean of two corners
            _add_(ends, offset, 0.5)
        if self._signed is not None:
            moved = end  # the last corner is maximum(first, last)
            if turning:  # of d / (d + s) / 2 the derivative is s / (d + s)^2 / 2, d = first - last
                reach = self.target_sides - self._signed.clamp(max=0)
                moved = torch.addcdiv(end, self.target_sides / reach, reach, value=0.5)
            moved = torch.addcmul(moved, moved, self._signed.sign(), value=-1)  # 1 - sign is 2 step
            begin.add_(moved, alpha=0.5)
            end.sub_(moved, alpha=0.5)
        self._parts.write(out, ends.flatten(0, 1))


class CentreDistance:
    """``d^2 / c^2`` of pairs of boxes: squared distance of the centres over squared diagonal.

    Attributes:
        value: The quotient, (N,).
        by_offset: d value / d `offset` of the pairs, (2, N).
        by_hull_sides: d value / d `hull_sides` of the pairs, (2, N).
    """

    def __init__(self, pairs: BoxPairs) -> None:
        double_offset = pairs.double_offset
        per_diagonal = squared_length_(pairs.hull_sides).reciprocal_()
        self.value = squared_length_(double_offset).mul_(per_diagonal).mul_(0.25)
        # d x^2 is 2 x dx, above as below the line
        self.by_offset = Product(double_offset, per_diagonal)
        self.by_hull_sides = Product(pairs.hull_sides, self.value * per_diagonal, -2)


class AspectDifference:
    """``v`` of CIoU for pairs of boxes.

    Attributes:
        value: v in [0, 1], (N,).
        by_sides: d value / d `sides` of the pairs, (2, N).
    """

    def __init__(self, pairs: BoxPairs) -> None:
        widths, heights = pairs.sides_with_raised_height()
        angle, target_angle = torch.atan2(widths, heights).unbind()
        difference = target_angle.sub_(angle)
        self.value = difference.square().mul_(4 / math.pi**2)
        # d atan2(w, h) is (h dw - w dh) / (w^2 + h^2)
        sides = torch.stack([-heights[0], widths[0]], dim=1).transpose(0, 1)
        self.by_sides = Product(sides, difference.div_(squared_length_(sides)), 8 / math.pi**2)


def _add_(total: Tensor, values: Tensor | Product, factor: float = 1.0) -> None:
    """Adds so many times `values` to `total`."""
    if isinstance(values, Product):
        total.addcmul_(values.one, values.other, value=factor * values.factor)
    else:
        total.add_(values, alpha=factor)


def _all_above(values: Tensor, floor: float) -> bool:
    """Whether all are; False also where looking needs a host sync."""
    return sync_is_free(values) and values.numel() > 0 and values.amin().item() > floor


def squared_length_(lengths: Tensor) -> Tensor:
    """``x^2 + y^2`` of (2, N); to stack the squares and sum them takes four times as long."""
    x, y = lengths.unbind()
    return (x * x).addcmul_(y, y)
