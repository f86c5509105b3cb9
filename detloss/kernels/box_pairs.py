"""The overlap family with its gradient, worked by hand.

`BoxPairs` measures pairs of boxes and carries a loss's gradient back to the first box of each pair.
It gives what autograd gives through `detloss.boxes.overlaps`, at ties of coordinates too, in a
third of the passes over memory.

A box is an interval along x and one along y, so every length is (2, N): all widths, then all
heights. The first end of an interval is kept with its sign turned. Then both ends are alike: the
length of an interval is their sum, the hull has the larger of two ends, and the intersection the
smaller one.

Many pairs are cut into parts, one for each core: N stands for two axes, (parts, pairs of a part).
PyTorch gives each core an equal share of the values, in the order of the memory. All that is
computed for a part lies together there, so the same core works on a part from the first operator to
the last, and finds what it needs in its own cache.

Some boxes need more than the plain gradient: where a side is below the floor or a box is inverted,
the gradient of that floor or collapsed side comes in. On a CPU the pairs are looked at once; where
there are no such boxes, these steps are left out.
"""

import math

import torch
from torch import Tensor

from detloss.tensors import sync_is_free

LEAST_PART = 4096
"""Pairs in a part at least. A tensor of four values a pair is then one that PyTorch computes on
several cores; it leaves one of under 32,768 values to one core.
"""


def step(values: Tensor) -> Tensor:
    """The derivative of ``maximum(values, 0)``: 1 where positive, 0 where negative, 1/2 at 0."""
    return values.sign().add_(1).mul_(0.5)


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


class BoxPairs:
    """Pairs of boxes, their measures, and the gradient of a loss for the first box of each.

    No method changes what another one returns.

    Args:
        first: Boxes (pairs, 4), such as predictions.
        second: Boxes (pairs, 4), such as targets.
        min_size: The least side, see `detloss.boxes.overlaps.floored_union`.

    Attributes:
        sides: Width and height of the first boxes, (2, N), at least 0.
        target_sides: Those of the second boxes.
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
        begin.neg_()

        def sides_of_all() -> Tensor:
            torch.maximum(first, second, out=hull)
            torch.minimum(first, second, out=intersection)
            return begin + end

        self._sides = sides_of_all()
        self._regular = _all_above(self._sides[2:], self.min_size)
        self._depth: Tensor | None = None  # how far a side of the first boxes is inverted, (2, N)
        if not self._regular:  # an inverted side collapses: its last end is maximum(first, last)
            self._depth = -self._sides[2]
            end[2:] = torch.maximum(-begin[2:], end[2:])
            self._sides = sides_of_all()
            self._sides[2:].clamp_(min=0)
        self.hull_sides, self.shared_sides, self.sides, self.target_sides = self._sides.unbind()
        self._meets = self.shared_sides.sign()
        self.shared_sides.clamp_(min=0)
        self._between = second.sub_(first)  # from the first box's ends to the second's, (2, 2, N)
        self._scratch = hull, intersection  # whose ends are done with, (2, 2, N) each

    def _measure_areas(self) -> None:
        """The areas and the IoU."""
        width, height = self._sides.unbind(1)
        self.hull_area, shared, area, target_area = (width * height).unbind()
        self.union = area.add_(target_area).sub_(shared)
        floored, self._union_derivative = self._floored_union()
        self._per_union = floored.reciprocal()
        self.iou = shared.div_(floored)

    def _floored_union(self) -> tuple[Tensor, Tensor | None]:
        """`detloss.boxes.overlaps.floored_union`; its derivative, None where it is all 1; (N,)."""
        if self._regular:
            return self.union, None
        floor = self.target_sides.clamp(min=self.min_size).prod(0)
        floor = torch.where(floor > self.target_sides.prod(0), floor, 0)
        return torch.maximum(self.union, floor), step(self.union - floor)

    @property
    def offset(self) -> Tensor:
        """From the centre of the second box to that of the first, (2, N)."""
        begin, end = self._between.unbind()  # begin with its sign turned
        return (begin - end).mul_(0.5)

    def floored(self, values: Tensor, floor: float) -> tuple[Tensor, Tensor | None]:
        """``maximum(values, floor)`` and its derivative; where that is all 1, `values` and None.

        Args:
            values: Lengths of what contains the second boxes, or squares of such lengths, (..., N).
            floor: `min_size` at most, or its square: if no side is below `min_size`, no value is
                below that.
        """
        if self._regular:
            return values, None
        return values.clamp(min=floor), step(values - floor)

    def sides_with_floored_height(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Widths, ``maximum(height, min_size - width)`` and its derivative, None where it is all 1.

        Each (2, N): of the first boxes, then of the second.
        """
        width, height = self._sides[2:].unbind(1)
        if self._regular:
            return width, height, None
        floor = self.min_size - width
        return width, torch.maximum(height, floor), step(height - floor)

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
        sides: Tensor | None = None,
        hull_sides: Tensor | None = None,
        offset: Tensor | None = None,
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
            turning: Whether the loss adds `detloss.boxes.overlaps.turning`.
        """
        if out is None:
            return
        by_shared, by_union = self._gradient_of_areas(iou, union)
        # The plain form, for one end of the first boxes, with s = sign(second's end - first's end):
        # the intersection has the smaller end, the hull the larger one, and at a tie either is half
        # of the first box's. A shared side is maximum(what its ends sum to, 0), hence the step.
        #   by_end = by_sides
        #          + by_shared_sides * step(shared_sides) * (1 + s) / 2
        #          + by_hull_sides * (1 - s) / 2
        # The lines below collect what is free of s in `by_end`, and four times what s multiplies in
        # `by_sign`. tests/kernels/test_box_pairs.py holds them against autograd.
        first = 1 if hull_area is None else 0
        other_sides = self._sides[first:3].flip(1)  # a copy: of an area, the derivative for a side
        *hull, by_shared_sides, by_end = other_sides.unbind()
        by_shared_sides.mul_(by_shared)
        by_end.mul_(by_union)
        if hull_area is not None:
            through_area = hull[0].mul_(hull_area)
            hull_sides = through_area if hull_sides is None else through_area.add_(hull_sides)
        by_sign = by_shared_sides.addcmul_(by_shared_sides, self._meets)  # 1 + sign is 2 step
        by_end.add_(by_sign, alpha=0.25)
        if sides is not None:
            by_end.add_(sides)
        if hull_sides is not None:
            by_end.add_(hull_sides, alpha=0.5)
            by_sign.sub_(hull_sides, alpha=2)
        ends, sign = self._scratch
        torch.sign(self._between, out=sign)
        torch.addcmul(by_end, sign, by_sign, value=0.25, out=ends)
        self._write_corners(out, ends, offset, turning)

    def _gradient_of_areas(self, iou: Tensor | None, union: Tensor | None) -> tuple[Tensor, Tensor]:
        """The gradients for the shared area and the union, (N,); the first area has the union's.

        With ``IoU = shared / floored union`` and ``union = area + target area - shared``:
        ``by_union = union - iou * IoU / floored union * floor's derivative`` and
        ``by_shared = iou / floored union - by_union``.
        """
        by_union = self.iou * self._per_union  # for the gradient -1 of `iou`
        if self._union_derivative is not None:
            by_union.mul_(self._union_derivative)
        if iou is not None:
            by_union.mul_(iou).neg_()
        if union is not None:
            by_union.add_(union)
        if iou is None:
            return (by_union + self._per_union).neg_(), by_union
        return torch.addcmul(-by_union, iou, self._per_union), by_union

    def _write_corners(
        self, out: Tensor, ends: Tensor, offset: Tensor | None, turning: bool
    ) -> None:
        """Writes the gradient of the ends (2, 2, N), overwritten, as that of the corners."""
        begin, end = ends.unbind()
        begin.neg_()
        if offset is not None:  # a centre is the mean of two corners
            ends.add_(offset, alpha=0.5)
        if self._depth is not None:
            moved = end  # the last corner is maximum(first, last)
            if turning:  # of d / (d + s) / 2 the derivative is s / (d + s)^2 / 2, d = first - last
                side = self.target_sides.clamp(min=self.min_size)
                reach = self._depth.clamp(min=0).add_(side)
                moved = end + side.div_(reach).div_(reach).mul_(0.5)
            moved = moved * step(self._depth)
            begin.add_(moved)
            end.sub_(moved)
        self._parts.write(out, ends.flatten(0, 1))


class CentreDistance:
    """``d^2 / c^2`` of pairs of boxes: squared distance of the centres over squared diagonal.

    Attributes:
        value: The quotient, (N,).
        by_offset: d value / d `offset` of the pairs, (2, N).
        by_hull_sides: d value / d `hull_sides` of the pairs, (2, N).
    """

    def __init__(self, pairs: BoxPairs) -> None:
        squared = _squared_length(*pairs.hull_sides.unbind())
        diagonal, derivative = pairs.floored(squared, pairs.min_size**2)
        offset = pairs.offset
        per_diagonal = diagonal.reciprocal()
        self.value = _squared_length(*offset.unbind()).mul_(per_diagonal)
        by_square = per_diagonal.mul_(2)  # d x^2 is 2 x dx, above as below the line
        self.by_offset = offset.mul_(by_square)
        by_square.mul_(self.value).neg_()
        if derivative is not None:
            by_square.mul_(derivative)
        self.by_hull_sides = pairs.hull_sides * by_square


class AspectDifference:
    """``v`` of CIoU for pairs of boxes.

    Attributes:
        value: v in [0, 1], (N,).
        by_sides: d value / d `sides` of the pairs, (2, N).
    """

    def __init__(self, pairs: BoxPairs) -> None:
        widths, heights, derivative = pairs.sides_with_floored_height()
        angle, target_angle = torch.atan2(widths, heights).unbind()
        difference = target_angle.sub_(angle)
        self.value = difference.square().mul_(4 / math.pi**2)
        width, height = widths[0], heights[0]
        # d atan2(w, h) is (h dw - w dh) / (w^2 + h^2)
        turn = difference.div_(_squared_length(width, height)).mul_(8 / math.pi**2)
        self.by_sides = torch.stack([-height, width], dim=1).transpose(0, 1).mul_(turn)
        if derivative is not None:
            by_width, by_height = self.by_sides
            by_width.sub_(by_height * (1 - derivative[0]))  # the floor shrinks as the width grows
            by_height.mul_(derivative[0])


def _all_above(values: Tensor, floor: float) -> bool:
    """Whether all are; False also where looking needs a host sync."""
    return sync_is_free(values) and values.numel() > 0 and values.amin().item() > floor


def _squared_length(x: Tensor, y: Tensor) -> Tensor:
    """``x^2 + y^2``; to stack the squares and sum them takes four times as long."""
    return (x * x).addcmul_(y, y)
