"""The family of IoU losses: an overlap, penalties, and what may be done to either.

    L = gain * factor * (cost(interval(IoU_ratio)) + sum of power(penalty))

    IoU_ratio   IoU of the boxes, or of the boxes with all sides times a ratio
    interval    identity, or the share of an interval (low, high) that the IoU has come
    cost        1 - x, -ln x, 1 - x^2 or 1 - x^a
    penalty     what the member adds, of the boxes as they are: distance, aspect, sides ...
    power       identity or x^a, of each penalty on its own
    gain        what multiplies all that, without a gradient
    factor      the same with its gradient

A `detloss.regression.members.Member` says its penalties; `family_loss` does the rest. So a
technique is one line over it: what is new in it. The overlap of a member is ``IoU - sum of
penalties``, and 1 minus that its loss.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from detloss.boxes.lengths import Lengths, least_side
from detloss.kernels import Reduction, box_loss
from detloss.kernels.box_pairs import BoxPairs
from detloss.regression.members import Member

CostMode = Literal["linear", "log", "square"]
COST_MODES = get_args(CostMode)


def check_interval(low: float, high: float) -> None:
    """Raises ValueError unless the interval of IoUs has a length."""
    if not 0 <= low < high <= 1:
        raise ValueError(f"low must be below high, and both in [0, 1], got {low} and {high}")


def family_loss(
    composition: "Composition",
    pred: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None,
    reduction: Reduction,
) -> Tensor:
    """The loss of boxes (..., 4); see `detloss.kernels.box_loss` for arguments and errors."""
    return box_loss(
        composition.plain,
        pred,
        target,
        *(_of_rows(name, given, pred) for name, given in composition.member.tensors.items()),
        fused=composition.fused if composition.has_closed_form else None,
        weight=weight,
        reduction=reduction,
    )


def _of_rows(name: str, given: Tensor, pred: Tensor) -> Tensor:
    """An option (2,) or (..., 2) of each row of `pred` (..., 4)."""
    rows = (*pred.shape[:-1], 2)
    if given.shape not in ((2,), rows):
        raise ValueError(f"{name} must have shape (2,) or {rows}, got {tuple(given.shape)}")
    return given.expand(rows)


@dataclass(frozen=True)
class Composition:
    """A loss of the family: a member, and what is done to its overlap and to its penalties.

    Attributes:
        member: What penalties there are.
        eps: Square of the least side of a target; also where "log" and a power below 1 stop
            becoming steeper.
        ratio: Of the boxes' sides in the IoU.
        low: The IoU, between 0 and 1, at which the interval begins.
        high: The one at which it ends, above `low`.
        mode: What the overlap x costs: "linear" ``1 - x``, "log" ``-ln x``, "square" ``1 - x^2``.
        power: Exponent a of "linear", ``1 - x^a``, and of each penalty.
        gain: What multiplies the loss of the pairs, (...,); it carries no gradient.
        factor: The same with its gradient.
    """

    member: Member
    eps: float
    ratio: float = 1.0
    low: float = 0.0
    high: float = 1.0
    mode: CostMode = "linear"
    power: float = 1.0
    gain: Callable[[Lengths | BoxPairs], Tensor] | None = None
    factor: Callable[[Lengths], Tensor] | None = None

    @property
    def has_closed_form(self) -> bool:
        """Whether `fused` may be called."""
        return self.member.fused is not None and self.ratio == 1 and self.factor is None

    def plain(self, pred: Tensor, target: Tensor, *rows: Tensor) -> Tensor:
        """The loss of boxes (..., 4), as (...,): differentiable.

        `rows` (..., 2) are the member's `tensors`.
        """
        pairs = Lengths(pred, target, least_side(self.eps))
        loss = self._cost(pairs.iou if self.ratio == 1 else pairs.scaled_iou(self.ratio))
        options = self.member.options_with([row.movedim(-1, 0) for row in rows])
        for penalty in self.member.penalties(pairs, **options):
            loss = loss + self._raised(penalty)
        if self.factor is not None:
            loss = loss * self.factor(pairs)
        if self.gain is not None:
            loss = loss * self.gain(pairs).detach()
        if self.gain is not None or self.factor is not None:
            loss = at_least_1_where(pairs.any_inverted, loss)
        return loss + pairs.turning

    def fused(self, pred: Tensor, gradient: Tensor | None, target: Tensor, *rows: Tensor) -> Tensor:
        """`plain` of boxes (N, 4), as (N,); its gradient is written over `gradient` (N, 4)."""
        assert self.member.fused is not None
        pairs = BoxPairs(pred, target, least_side(self.eps))
        options = self.member.options_with([pairs.lengths_of(row) for row in rows])
        penalties = self.member.fused(pairs, **options)
        if self.power != 1:
            penalties = [penalty.through(self._raised, self._steepness) for penalty in penalties]
        is_plain = (self.low, self.high, self.mode, self.power) == (0, 1, "linear", 1)
        loss = pairs.distance if is_plain else self._cost(pairs.iou)
        for penalty in penalties:
            loss = penalty.add_to(loss)
        gain = None if self.gain is None else self.gain(pairs)
        if gain is not None:
            loss = loss * gain
            if (inverted := pairs.any_inverted) is not None:
                gain = torch.where(inverted & (loss < 1), 0, gain)
                loss = at_least_1_where(inverted, loss)
        by_iou = None if is_plain else self._slope(pairs.iou)
        pairs.gradient(gradient, penalties, iou=by_iou, gain=gain)
        return pairs.rows(loss)

    def _cost(self, iou: Tensor) -> Tensor:
        """What an IoU costs."""
        share = iou
        if (self.low, self.high) != (0, 1):
            share = (iou - self.low) / (self.high - self.low)
        if self.low > 0:
            share = torch.maximum(share, share.new_zeros(()))
        if self.high < 1:
            share = torch.minimum(share, share.new_ones(()))
        if self.mode == "log":
            return -share.clamp(min=self.eps).log()
        return 1 - (share * share if self.mode == "square" else self._raised(share))

    def _slope(self, iou: Tensor) -> Tensor:
        """The derivative of `_cost`."""
        share = (iou - self.low) / (self.high - self.low)
        inside = share.clamp(0, 1)
        if self.mode == "log":
            slope = torch.where(inside >= self.eps, 1 / inside.clamp(min=self.eps), 0)
        else:
            slope = 2 * inside if self.mode == "square" else self._steepness(inside)
        if self.low > 0:  # half of it at an end
            slope = slope * share.sign().add_(1).mul_(0.5)
        if self.high < 1:
            slope = slope * (1 - share).sign_().add_(1).mul_(0.5)
        return slope / (self.low - self.high)

    def _raised(self, x: Tensor) -> Tensor:
        """``x^a``, as far as its slope is bounded: for a above 1 it is linear beyond 1, for a below
        1 up to `eps`.
        """
        if self.power == 1:
            return x
        if self.power > 1:
            inner = x.clamp(max=1)
            return inner.pow(self.power) + self.power * (x - inner)
        return x * x.clamp(min=self.eps).pow(self.power - 1)

    def _steepness(self, x: Tensor) -> Tensor:
        """The derivative of `_raised`."""
        if self.power >= 1:
            return self.power * x.clamp(max=1).pow(self.power - 1)
        return x.clamp(min=self.eps).pow(self.power - 1) * torch.where(x >= self.eps, self.power, 1)


def at_least_1_where(inverted: Tensor, loss: Tensor) -> Tensor:
    """`loss` (...,), and 1 at least where a box is inverted: it must not score as a good one."""
    return torch.where(inverted & (loss < 1), 1, loss)
