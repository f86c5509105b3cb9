"""Powerful-IoU loss: IoU and the distances of the edges, over the target's sides."""

from typing import ClassVar

import torch
from torch import Tensor

from detloss.boxes.lengths import Lengths
from detloss.kernels import Reduction
from detloss.registry import REGRESSION, Positive
from detloss.regression.base import BoxLoss, Space
from detloss.regression.family import Composition, family_loss
from detloss.regression.members import member


def piou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Powerful-IoU loss of each pair of boxes, ``1 - IoU + 1 - exp(-P^2)``.

    ``P = (|x1 - x1t| / wt + |x2 - x2t| / wt + |y1 - y1t| / ht + |y2 - y2t| / ht) / 4`` divides by
    the sides of the target alone: nothing falls as a prediction grows, so that one far away moves
    without becoming larger first. Beyond about three sides it has hardly a gradient.

    It is good where predictions start within a few sides of their targets, as anchors do. It costs
    autograd, about three times as many launches as a GIoU.

    Args:
        pred: Predicted boxes (..., 4) as (x1, y1, x2, y2), floating point.
        target: Ground-truth boxes of the same shape, in the unit of `pred`: pixels or fractions
            of the image. The loss does not change with the unit.
        eps: Square of the least side of a target, in the unit of the boxes: a shorter side counts
            as that long, so that no gradient exceeds ``10 / sqrt(eps)``. Make it smaller where
            objects are: 1e-7 is 0.4 px of a 1280 px image in fractions.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss in [0, 2]: 0 for identical boxes without a side below sqrt(eps), towards 2 far apart.
        It is not symmetric. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If a box tensor is not floating point.
        ValueError: If the shapes differ or a last axis is not 4.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is at least 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`.

    Example:
        >>> import torch
        >>> piou_loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor([0.7273])

    Reference:
        Liu et al., "Powerful-IoU: More Straightforward and Faster Bounding Box Regression Loss with
        a Nonmonotonic Focusing Mechanism", Neural Networks 2024, section 3.2.
    """
    composition = Composition(PIOU, eps)
    return family_loss(composition, pred, target, weight=weight, reduction=reduction)


def _penalties(pairs: Lengths) -> tuple[Tensor, ...]:
    return (-torch.expm1(-mean_distance(pairs).square()),)


def mean_distance(pairs: Lengths) -> Tensor:
    """P: the mean of the four distances of edges, over the target's sides, (...,)."""
    first, last = pairs.overhang
    x, y = ((first.abs() + last.abs()) / pairs.target_sides).unbind()
    return (x + y) / 4


PIOU = member("piou", _penalties)


@REGRESSION.register("piou")
class PIoULoss(BoxLoss):
    """`piou_loss` as a module.

    Args:
        eps: See `piou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> PIoULoss()(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor(0.7273)
    """

    function = staticmethod(piou_loss)
    space: ClassVar[Space] = "boxes"

    def __init__(self, *, eps: Positive = 1e-7, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.eps = eps
