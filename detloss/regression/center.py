"""Loss of CenterNet's codes: L1 of the offset in a cell and of the size, each with its factor."""

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from detloss.kernels import Reduction, box_loss
from detloss.options import check_non_negative
from detloss.registry import REGRESSION, NonNegative
from detloss.regression.base import BoxLoss, Space


def center_loss(
    pred: Tensor,
    target: Tensor,
    *,
    offset: float = 1.0,
    size: float = 0.1,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """L1 loss of codes (x, y, w, h) with a factor for places and one for sizes, summed over a row.

    ``L = offset (|d_x| + |d_y|) + size (|d_w| + |d_h|)``, d the difference of prediction and
    target. A size is many cells, an offset less than one: with equal factors the sizes would rule.

    Args:
        pred: Predicted deltas (..., 4), floating point, any unit.
        target: True deltas of the same shape.
        offset: Factor of x and y, >= 0; at 0 they have no gradient.
        size: Factor of w and h, >= 0; at 0 they have no gradient.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss >= 0. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If a tensor is not floating point.
        ValueError: If the shapes differ, a last axis is not 4, or a factor is negative.

    Example:
        >>> import torch
        >>> center_loss(torch.tensor([[0.5, 0, 0, -2]]), torch.zeros(1, 4))
        tensor([0.7000])

    Reference:
        Zhou et al., "Objects as Points" (CenterNet), 2019, arXiv:1904.07850, equations 2 to 4.
    """
    check_non_negative("offset", offset)
    check_non_negative("size", size)
    return box_loss(
        partial(_center, offset=offset, size=size),
        pred,
        target,
        fused=partial(_fused, offset=offset, size=size),
        weight=weight,
        reduction=reduction,
    )


def _center(pred: Tensor, target: Tensor, offset: float, size: float) -> Tensor:
    loss = torch.zeros_like(pred[..., 0])
    for columns, factor in ((slice(2), offset), (slice(2, 4), size)):
        if factor:  # a factor of 0 is 0 also where the sum overflows
            difference = pred[..., columns] - target[..., columns]
            loss = loss + factor * difference.abs().sum(-1)
    return loss


def _fused(
    pred: Tensor, gradient: Tensor | None, target: Tensor, offset: float, size: float
) -> Tensor:
    """`_center` of codes (N, 4), as (N,); its gradient is written over `gradient` (N, 4)."""
    if gradient is not None:
        signs = torch.sign(pred - target, out=gradient)
        for columns, factor in ((slice(2), offset), (slice(2, 4), size)):
            part = signs[:, columns]
            part.mul_(factor) if factor else part.zero_()
    return _center(pred, target, offset, size)


@REGRESSION.register("center")
class CenterLoss(BoxLoss):
    """`center_loss` as a module.

    Args:
        offset: See `center_loss`.
        size: See `center_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> CenterLoss(offset=0.0)(torch.tensor([[0.5, 0, 0, -2]]), torch.zeros(1, 4))
        tensor(0.2000)
    """

    function = staticmethod(center_loss)
    space: ClassVar[Space] = "deltas"

    def __init__(
        self, *, offset: NonNegative = 1.0, size: NonNegative = 0.1, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction)
        self.offset = offset
        self.size = size
