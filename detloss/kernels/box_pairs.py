"""The overlap family with its gradient, worked by hand.

`Pair` measures pairs of boxes and carries gradients back to the first box of each, as autograd
would do it for `detloss.boxes.overlaps`, ties of coordinates included, in a third of the passes
over memory. A box is two intervals, so every length is (2, N): all widths, then all heights. The
first corner of a box is kept with its sign turned, then both ends of an interval are alike: a
length is their sum, and the longer interval has the larger ends.

Many pairs are cut into parts, one a core, so that N stands for two axes, (parts, pairs of a part).
All that is computed of a part lies together in memory. PyTorch gives each core an equal share of
the values, in the order of the memory, whatever the shape: so it is always the same core that works
on a part, and what it needs is in its own cache. Otherwise up to half of it is in another core's.

On a CPU it is looked at once whether a box is so small, flat or inverted that a floor or a
collapsed side needs its own slope.
"""

import math

import torch
from torch import Tensor

from detloss.tensors import sync_is_free

LEAST_PART = 4096
"""Pairs of a part at least; PyTorch spreads nothing over the cores that has under 32,768 values."""


def step(values: Tensor) -> Tensor:
    """1 where positive, 0 where negative, 1/2 at 0: the slope of ``maximum(values, 0)``."""
    return values.sign().add_(1).mul_(0.5)


def _parts(boxes: Tensor) -> int:
    """Into how many parts to cut `boxes` (N, 4)."""
    cores = torch.get_num_threads() if boxes.is_cpu else 1
    return max(min(cores, len(boxes) // LEAST_PART), 1)


def _all_above(values: Tensor, floor: float) -> bool:
    """Whether all are; False also where looking is a wait."""
    return sync_is_free(values) and values.numel() > 0 and values.amin().item() > floor


class Pair:
    """Pairs of boxes, (pairs, 4) each, and how the overlap moves with the first of a pair.

    Attributes:
        hull: Width and height of the smallest box around both, (2, N).
        shared: Sides of the intersection.
        target_side: Sides of the second boxes.
        hull_area: Area of the hull, (N,).
        union: Area of the union.
        iou: Intersection over union.
    """

    def __init__(self, first: Tensor, second: Tensor, min_size: float) -> None:
        self._count = len(first)
        parts = _parts(first)
        self._stride = max(self._count // parts, 1)
        self._size = self._count - (parts - 1) * self._stride
        # four boxes, two ends, two axes; `cat` takes an eighth of a transposed copy's time
        planes = first.new_empty(parts, 16, self._size).transpose(0, 1)
        torch.cat([self._parted(first), self._parted(second)], out=planes[8:])
        boxes = planes.view(4, 2, 2, parts, self._size)
        begin, end = boxes.unbind(1)
        begin.neg_()
        hull, intersection, a, b = boxes.unbind()

        def lengths() -> Tensor:
            torch.maximum(a, b, out=hull)
            torch.minimum(a, b, out=intersection)
            return begin + end

        self._lengths = lengths()
        self.min_size = min_size
        self._regular = _all_above(self._lengths[2:], min_size)
        self._upright = None
        if not self._regular:
            self._upright = step(self._lengths[2])
            end[2:] = torch.maximum(-begin[2:], end[2:])
            self._lengths = lengths()
            self._lengths[2:].clamp_(min=0)
        self.hull, self.shared, _, self.target_side = self._lengths.unbind()
        self._between = b.sub_(a)
        self._room = hull  # its ends are done with
        self._meets = self.shared.sign()
        self.shared.clamp_(min=0)

        width, height = self._lengths.unbind(1)
        self.hull_area, shared, area, target_area = (width * height).unbind()
        self.union = area.add_(target_area).sub_(shared)
        union, self._union_slope = self._floored_union()
        self._per_union = union.reciprocal()
        self.iou = shared.div_(union)

    def _parted(self, rows: Tensor) -> Tensor:
        """`rows`, (pairs, ...), as (..., parts, pairs of a part), a view.

        All parts are of a size: where the pairs cannot be divided so, a few are in two parts.
        """
        parts: Tensor = rows.unfold(0, self._size, self._stride)
        return parts.transpose(0, -2)

    def _write(self, rows: Tensor, values: Tensor) -> None:
        """Writes `values` (..., N) over `rows`, (pairs, ...)."""
        parted = self._parted(rows)
        if self._size > self._stride:  # once what is in two parts: its last bit may differ there
            parted[..., -1, self._stride :].copy_(values[..., -1, self._stride :])
            parted, values = parted[..., : self._stride], values[..., : self._stride]
        parted.copy_(values)

    def rows(self, values: Tensor) -> Tensor:
        """`values` (N,), one a pair, in one axis."""
        if self._size == self._stride:
            return values.flatten()
        rows = values.new_empty(self._count)
        self._write(rows, values)
        return rows

    def floored(self, values: Tensor, floor: float) -> tuple[Tensor, Tensor | None]:
        """``maximum(values, floor)`` and its slope, None where that is all 1.

        It is where no side is below `min_size`, so of lengths the floor is that at most.
        """
        if self._regular:
            return values, None
        return values.clamp(min=floor), step(values - floor)

    def sides_with_floored_height(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Widths, ``maximum(height, min_size - width)`` and its slope, None where that is all 1.

        (2, N): of the first boxes, then of the second.
        """
        width, height = self._lengths[2:].unbind(1)
        if self._regular:
            return width, height, None
        floor = self.min_size - width
        return width, torch.maximum(height, floor), step(height - floor)

    def _floored_union(self) -> tuple[Tensor, Tensor | None]:
        """`detloss.boxes.overlaps.floored_union` and its slope, None where that is all 1."""
        if self._regular:
            return self.union, None
        floor = self.target_side.clamp(min=self.min_size).prod(0)
        floor = torch.where(floor > self.target_side.prod(0), floor, 0)
        return torch.maximum(self.union, floor), step(self.union - floor)

    def twice_offset(self) -> Tensor:
        """Twice the way from the centre of the second box to that of the first, (2, N)."""
        return torch.sub(*self._between.unbind())

    def gradient(
        self,
        out: Tensor | None,
        *,
        iou: Tensor | None = None,
        union: Tensor | None = None,
        hull_area: Tensor | None = None,
        side: Tensor | None = None,
        hull: Tensor | None = None,
        offset: Tensor | None = None,
    ) -> None:
        """Writes the gradient of a loss that falls with the overlap over `out`.

        The shared sides grow with an end of the first box where it is the smaller one, the hull
        where it is the larger one, each by half at a tie: a mean of both, and half of their
        difference times the sign of what is left.

        Args:
            out: (pairs, 4), or None to do nothing.
            iou: How fast the loss falls with `iou`, (N,); None for 1, as ``1 - iou`` does.
            union: How fast it falls with `union` (N,), beside that through the IoU.
            hull_area: Its gradient for `hull_area`, (N,).
            side: For the sides of the first boxes (2, N), beside that through their area.
            hull: For `hull` (2, N), beside that through its area.
            offset: For `offset`, (2, N).
        """
        if out is None:
            return
        shared, area = self._per_union, self.iou * self._per_union
        if self._union_slope is not None:
            area.mul_(self._union_slope)
        if iou is not None:
            shared, area = shared * iou, area.mul_(iou)
        if union is not None:
            area.sub_(union)
        shared = shared + area  # how fast the loss falls
        by_area = [shared, area] if hull_area is None else [hull_area, shared, area]
        # of a product, each factor's slope is the other one
        pulls = self._lengths[3 - len(by_area) : 3].flip(1).unbind()
        *through_area, split, mean = (p.mul_(rate) for p, rate in zip(pulls, by_area, strict=True))
        if through_area:
            hull = through_area[0] if hull is None else through_area[0].add_(hull)
        split.addcmul_(split, self._meets)  # twice what arrives
        mean.sub_(split, alpha=0.25)
        if side is not None:
            mean.add_(side)
        if hull is not None:
            mean.add_(hull, alpha=0.5)
            split.add_(hull, alpha=2)
        ends = torch.addcmul(mean, self._between.sign_(), split, value=-0.25, out=self._room)
        begin, end = ends.unbind()
        begin.neg_()
        if offset is not None:
            ends.add_(offset, alpha=0.5)
        if self._upright is not None:  # the last corner is maximum(first, last)
            inverted = end * (1 - self._upright)
            begin.add_(inverted)
            end.sub_(inverted)
        self._write(out, ends.flatten(0, 1))


class CentreDistance:
    """``d^2 / c^2`` of pairs of boxes: squared distance of the centres over squared diagonal.

    Attributes:
        value: The quotient, (N,).
        by_offset: Its slopes with the pair's `offset`, (2, N).
        by_hull: Its slopes with the pair's `hull`, (2, N).
    """

    def __init__(self, pair: Pair) -> None:
        diagonal, slope = pair.floored(_squared_length(*pair.hull.unbind()), pair.min_size**2)
        offset = pair.twice_offset()
        per_diagonal = diagonal.reciprocal()
        self.value = _squared_length(*offset.unbind()).mul_(per_diagonal).mul_(0.25)
        self.by_offset = offset.mul_(per_diagonal)
        shrink = per_diagonal.mul_(self.value).mul_(-2)
        if slope is not None:
            shrink.mul_(slope)
        self.by_hull = pair.hull * shrink


class AspectDifference:
    """``v`` of CIoU for pairs of boxes.

    Attributes:
        value: v in [0, 1], (N,).
        by_side: Its slopes with the sides of the first boxes, (2, N).
    """

    def __init__(self, pair: Pair) -> None:
        widths, heights, slope = pair.sides_with_floored_height()
        angle, target_angle = torch.atan2(widths, heights).unbind()
        difference = target_angle.sub_(angle)
        self.value = difference.square().mul_(4 / math.pi**2)
        width, height = widths[0], heights[0]
        turn = difference.div_(_squared_length(width, height)).mul_(8 / math.pi**2)
        self.by_side = torch.stack([-height, width], dim=1).transpose(0, 1).mul_(turn)
        if slope is not None:
            by_width, by_height = self.by_side
            by_width.sub_(by_height * (1 - slope[0]))  # the floor shrinks as the width grows
            by_height.mul_(slope[0])


def _squared_length(x: Tensor, y: Tensor) -> Tensor:
    """``x^2 + y^2``; to stack the squares and sum them takes four times as long."""
    return (x * x).addcmul_(y, y)
