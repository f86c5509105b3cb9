"""The overlap family with its gradient, worked by hand.

`Pair` measures pairs of boxes and carries gradients back to the first box of each, as autograd
would do it for `detloss.boxes.overlaps`, ties of coordinates included, in a third of the passes
over memory. A box is two intervals, so every length is (2, N): all widths, then all heights.
"""

import math
from functools import cached_property

import torch
from torch import Tensor

from detloss.boxes.looking import may_look


def step(values: Tensor) -> Tensor:
    """1 where positive, 0 where negative, 1/2 at 0: the slope of ``maximum(values, 0)``."""
    return values.sign().add_(1).mul_(0.5)


def floored(values: Tensor, floor: float) -> tuple[Tensor, Tensor | None]:
    """``maximum(values, floor)`` and its slope, None where that is 1 throughout.

    Only on a CPU is it looked at whether there is something to do: elsewhere looking is a wait.
    """
    if _all_above(values, floor):
        return values, None
    return values.clamp(min=floor), step(values - floor)


def _all_above(values: Tensor, floor: float) -> bool:
    return may_look(values) and values.numel() > 0 and values.amin().item() > floor


def product(lengths: Tensor) -> Tensor:
    """Width times height, (2, N) -> (N,)."""
    return lengths[0] * lengths[1]


def by_factor(slope: Tensor, lengths: Tensor) -> Tensor:
    """The gradient for `lengths` (2, N), given that for their `product` (N,)."""
    return lengths.flip(0).mul_(slope)


class Pair:
    """Pairs of boxes (N, 4), and how the overlap of each moves with the first.

    Attributes:
        side: Width and height of the first boxes, (2, N).
        target_side: Width and height of the second boxes.
        shared: Sides of the intersection.
        union: Area of the union, (N,).
        iou: Intersection over union.
        iou_by_shared: Slope of `iou` with the shared area.
        iou_by_area: Slope of `iou` with the area of the first box.
    """

    def __init__(self, first: Tensor, second: Tensor, eps: float) -> None:
        # corner, axis, pair; to stack four columns takes a fifth of the time of a transposed copy
        self._first = torch.stack(first.unbind(1)).view(2, 2, -1)
        self._second = torch.stack(second.unbind(1)).view(2, 2, -1)
        a1, a2 = self._first.unbind()
        b1, b2 = self._second.unbind()
        lengths = a1.new_empty(3, *a1.shape)
        self.shared, self.side, self.target_side = lengths.unbind()
        torch.sub(a2, a1, out=self.side)
        torch.sub(b2, b1, out=self.target_side)
        self._upright = None
        if not _all_above(lengths[1:], 0):
            self._upright = step(self.side)
            a2.copy_(torch.maximum(a1, a2))
            b2.copy_(torch.maximum(b1, b2))
            lengths[1:].clamp_(min=0)
        self._after = torch.sub(self._second, self._first).sign_()
        shared = torch.minimum(a2, b2).sub_(torch.maximum(a1, b1))
        torch.clamp(shared, min=0, out=self.shared)
        self._meets = shared.sign_()

        shared_area, area, target_area = torch.mul(lengths[:, 0], lengths[:, 1]).unbind()
        self.union = area.add_(target_area).sub_(shared_area)
        union, slope = floored(self.union, eps)
        self.iou = shared_area.div_(union)
        per_union = union.reciprocal()
        self.iou_by_area = (self.iou * per_union).neg_()
        if slope is not None:
            self.iou_by_area.mul_(slope)
        self.iou_by_shared = per_union.sub_(self.iou_by_area)

    @cached_property
    def hull(self) -> Tensor:
        """Sides of the smallest box around both, (2, N)."""
        a1, a2 = self._first.unbind()
        b1, b2 = self._second.unbind()
        return torch.maximum(a2, b2).sub_(torch.minimum(a1, b1))

    @cached_property
    def offset(self) -> Tensor:
        """From the centre of the second box to that of the first, (2, N)."""
        a1, a2 = self._first.unbind()
        b1, b2 = self._second.unbind()
        return torch.add(a1, a2).sub_(b1).sub_(b2).mul_(0.5)

    def gradient(
        self,
        out: Tensor | None,
        *,
        shared: Tensor,
        area: Tensor,
        side: Tensor | None = None,
        hull: Tensor | None = None,
        offset: Tensor | None = None,
    ) -> None:
        """Writes the gradient for the first boxes over `out`, (N, 4).

        The shared sides grow with the last corner where the first box ends first, the hull where
        it ends last, each by half at a tie: a mean of both, and half of their difference times
        the sign of what is left. So it is, with the other sign, for the first corner.

        Args:
            out: (N, 4), or None to do nothing.
            shared: Gradient for the shared area, (N,).
            area: Gradient for the area of the first box, (N,).
            side: Gradient for `side` (2, N), beside that through the area.
            hull: Gradient for `hull`.
            offset: Gradient for `offset`.
        """
        if out is None:
            return
        pull = by_factor(shared, self.shared)
        split = pull.addcmul_(pull, self._meets).mul_(0.25)
        mean = by_factor(area, self.side).add_(split)
        if side is not None:
            mean.add_(side)
        if hull is not None:
            mean.add_(hull, alpha=0.5)
            split.sub_(hull, alpha=0.5)
        corners = self._after.mul_(split)
        corners[0].sub_(mean)
        corners[1].add_(mean)
        if offset is not None:
            corners.add_(offset, alpha=0.5)
        if self._upright is not None:  # the last corner is maximum(a1, a2)
            upright = corners[1] * self._upright
            corners[0].add_(corners[1]).sub_(upright)
            corners[1].copy_(upright)
        for column, values in zip(out.unbind(1), corners.view(4, -1), strict=True):
            column.copy_(values)


class CentreDistance:
    """``d^2 / c^2`` of pairs of boxes: squared distance of the centres over squared diagonal.

    Attributes:
        value: The quotient, (N,).
        by_offset: Its slopes with the pair's `offset`, (2, N).
        by_hull: Its slopes with the pair's `hull`, (2, N).
    """

    def __init__(self, pair: Pair, eps: float) -> None:
        diagonal, slope = floored(pair.hull.square().sum(0), eps)
        twice = diagonal.reciprocal_().mul_(2)
        self.value = pair.offset.square().sum(0).mul_(twice).mul_(0.5)
        self.by_offset = pair.offset * twice
        shrink = twice.mul_(self.value).neg_()
        if slope is not None:
            shrink.mul_(slope)
        self.by_hull = pair.hull * shrink


class AspectDifference:
    """``v`` of CIoU for pairs of boxes.

    Attributes:
        value: v in [0, 1], (N,).
        by_side: Its slopes with the pair's `side`, (2, N).
    """

    def __init__(self, pair: Pair, eps: float) -> None:
        width = pair.side[0]
        height, slope = floored(pair.side[1], eps)
        target_width, target_height = pair.target_side
        difference = torch.atan2(target_width, target_height.clamp(min=eps))
        difference.sub_(torch.atan2(width, height))
        self.value = difference.square().mul_(4 / math.pi**2)
        turn = (width * width).addcmul_(height, height).reciprocal_()
        turn.mul_(difference).mul_(8 / math.pi**2)
        self.by_side = torch.empty_like(pair.side)
        torch.mul(turn, height, out=self.by_side[0]).neg_()
        torch.mul(turn, width, out=self.by_side[1])
        if slope is not None:
            self.by_side[1].mul_(slope)
