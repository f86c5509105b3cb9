"""The overlap family with its gradient, worked by hand.

`Pair` measures pairs of boxes and carries gradients back to the first box of each, as autograd
would do it for `detloss.boxes.overlaps`, ties of coordinates included, in a third of the passes
over memory. Every length is (N, 2), x and y side by side: a box is two intervals.
"""

import math

import torch
from torch import Tensor


def step(values: Tensor) -> Tensor:
    """1 where positive, 0 where negative, 1/2 at 0: the slope of ``maximum(values, 0)``."""
    return values.sign().add_(1).mul_(0.5)


def product(lengths: Tensor) -> Tensor:
    """Width times height, (N, 2) -> (N,)."""
    return lengths[:, 0] * lengths[:, 1]


def by_factor(slope: Tensor, lengths: Tensor) -> Tensor:
    """The gradient for `lengths` (N, 2), given that for their `product` (N,)."""
    return lengths.flip(-1).mul_(slope[:, None])


class Pair:
    """Pairs of boxes (N, 4), and how the overlap of each moves with the first.

    Attributes:
        side: Width and height of the first boxes, (N, 2).
        target_side: Width and height of the second boxes.
        shared: Sides of the intersection.
        hull: Sides of the smallest box around both.
        offset: From the centre of the second to that of the first.
        union: Area of the union, (N,).
        iou: Intersection over union.
        iou_by_shared: Slope of `iou` with the shared area.
        iou_by_area: Slope of `iou` with the area of the first box.
    """

    def __init__(self, first: Tensor, second: Tensor, eps: float) -> None:
        a1, a2 = first.view(-1, 2, 2).transpose(0, 1).contiguous().unbind()
        b1, b2 = second.reshape(-1, 2, 2).transpose(0, 1).contiguous().unbind()
        self._upright = step(a2 - a1)
        a2, b2 = torch.maximum(a1, a2), torch.maximum(b1, b2)

        self.side, self.target_side = a2 - a1, b2 - b1
        self.shared = torch.minimum(a2, b2).sub_(torch.maximum(a1, b1))
        self._meets = step(self.shared)
        self.shared.clamp_(min=0)
        self.hull = torch.maximum(a2, b2).sub_(torch.minimum(a1, b1))
        self.offset = (a1 + a2).sub_(b1).sub_(b2).mul_(0.5)
        self._ends_last = step(a2 - b2)
        self._begins_first = step(b1 - a1)

        shared = product(self.shared)
        self.union = product(self.side).add_(product(self.target_side)).sub_(shared)
        floored = self.union.clamp(min=eps)
        self.iou = shared.div_(floored)
        per_union = floored.reciprocal_()
        self.iou_by_area = step(self.union - eps).mul_(self.iou).mul_(per_union).neg_()
        self.iou_by_shared = per_union.sub_(self.iou_by_area)

    def gradient(
        self,
        *,
        shared: Tensor,
        area: Tensor,
        side: Tensor | None = None,
        hull: Tensor | None = None,
        offset: Tensor | None = None,
    ) -> Tensor:
        """The gradient (N, 4) for the first boxes.

        The shared sides grow with the last corner where the first box ends first, the hull where
        it ends last; and so, with the other sign, for the first corner.

        Args:
            shared: Gradient for the shared area, (N,).
            area: Gradient for the area of the first box, (N,).
            side: Gradient for `side` (N, 2), beside that through the area.
            hull: Gradient for `hull`.
            offset: Gradient for `offset`.
        """
        by_side = by_factor(area, self.side)
        if side is not None:
            by_side.add_(side)
        by_shared = by_factor(shared, self.shared).mul_(self._meets)
        last = torch.addcmul(by_shared, by_shared, self._ends_last, value=-1).add_(by_side)
        first = torch.addcmul(by_shared, by_shared, self._begins_first, value=-1).add_(by_side)
        if hull is not None:
            last.addcmul_(hull, self._ends_last)
            first.addcmul_(hull, self._begins_first)
        first.neg_()
        if offset is not None:
            last.add_(offset, alpha=0.5)
            first.add_(offset, alpha=0.5)
        upright = last * self._upright  # the last corner is maximum(a1, a2)
        return torch.cat([first.add_(last).sub_(upright), upright], dim=-1)


class CentreDistance:
    """``d^2 / c^2`` of pairs of boxes: squared distance of the centres over squared diagonal.

    Attributes:
        value: The quotient, (N,).
        by_offset: Its slopes with the pair's `offset`, (N, 2).
        by_hull: Its slopes with the pair's `hull`, (N, 2).
    """

    def __init__(self, pair: Pair, eps: float) -> None:
        diagonal = pair.hull.square().sum(-1)
        per_diagonal = diagonal.clamp(min=eps).reciprocal_()
        self.value = pair.offset.square().sum(-1).mul_(per_diagonal)
        twice = per_diagonal.mul_(2)
        self.by_offset = pair.offset * twice[:, None]
        shrink = step(diagonal - eps).mul_(self.value).mul_(twice).neg_()
        self.by_hull = pair.hull * shrink[:, None]


class AspectDifference:
    """``v`` of CIoU for pairs of boxes.

    Attributes:
        value: v in [0, 1], (N,).
        by_side: Its slopes with the pair's `side`, (N, 2).
    """

    def __init__(self, pair: Pair, eps: float) -> None:
        width, flat = pair.side.t().contiguous()
        height = flat.clamp(min=eps)
        target_width, target_height = pair.target_side.t().contiguous()
        difference = torch.atan2(target_width, target_height.clamp(min=eps))
        difference.sub_(torch.atan2(width, height))
        self.value = difference.square().mul_(4 / math.pi**2)
        turn = (width * width).addcmul_(height, height).reciprocal_()
        turn.mul_(difference).mul_(8 / math.pi**2)
        by_height = (turn * width).mul_(step(flat - eps))
        self.by_side = torch.stack([-turn * height, by_height], dim=-1)
