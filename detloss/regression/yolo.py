"""Loss of YOLO's codes: cross-entropy of the centre, squared error of the size."""

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from detloss.kernels import Reduction, box_loss, softplus
from detloss.options import check_non_negative
from detloss.registry import REGRESSION, NonNegative
from detloss.regression.base import BoxLoss, Space


def yolo_loss(
    pred: Tensor,
    target: Tensor,
    *,
    centre: float = 1.0,
    size: float = 1.0,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Loss of codes (x, y, w, h) whose x and y go through a sigmoid, summed over a row.

    ``L = centre (H(x) + H(y)) + size (d_w^2 + d_h^2)``: d is the difference of prediction and
    target, and ``H = -q ln p - (1 - q) ln(1 - p)`` with the sigmoids p of the prediction and q of
    the target. The gradient ``p - q`` does not vanish where the sigmoid is flat. H is smallest at
    p = q, where it is the entropy of q and not 0.

    Args:
        pred: Predicted deltas (..., 4), floating point, any unit.
        target: True deltas of the same shape.
        centre: Factor of x and y, >= 0; at 0 they have no gradient.
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
        In the middle of the cell, where H is ln 2, and with a difference of 2 in the height:

        >>> import torch
        >>> yolo_loss(torch.tensor([[0.0, 0, 0, -2]]), torch.zeros(1, 4))
        tensor([5.3863])

    Reference:
        Redmon and Farhadi, "YOLOv3: An Incremental Improvement", 2018, arXiv:1804.02767, section
        2.1, as mmdetection has it.
    """
    check_non_negative("centre", centre)
    check_non_negative("size", size)
    return box_loss(
        partial(_yolo, centre=centre, size=size),
        pred,
        target,
        fused=partial(_fused, centre=centre, size=size),
        weight=weight,
        reduction=reduction,
    )


def _yolo(pred: Tensor, target: Tensor, centre: float, size: float) -> Tensor:
    loss = torch.zeros_like(pred[..., 0])
    if centre:  # a factor of 0 is 0 also where the sum overflows
        x, goal = _towards_no(pred, target)
        entropy = softplus(x) - goal.sigmoid() * x
        loss = loss + centre * entropy.sum(-1)
    if size:
        difference = pred[..., 2:] - target[..., 2:]
        loss = loss + size * difference.square().sum(-1)
    return loss


def _towards_no(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The centres (..., 2) of both, all signs turned where that of the prediction is +.

    So the sigmoids of large logits keep their digits: ``1 - p = sigmoid(-x)``.
    """
    sign = torch.where(pred[..., :2] > 0, -1, 1)
    return sign * pred[..., :2], sign * target[..., :2]


def _fused(
    pred: Tensor, gradient: Tensor | None, target: Tensor, centre: float, size: float
) -> Tensor:
    """`_yolo` of codes (N, 4), as (N,); its gradient is written over `gradient` (N, 4)."""
    if gradient is not None:
        x, goal = _towards_no(pred, target)
        away = x.sigmoid_() - goal.sigmoid_()
        of_centre = centre * torch.where(pred[:, :2] > 0, -away, away)
        of_size = (pred[:, 2:] - target[:, 2:]) * (2 * size)
        torch.cat([of_centre, of_size], 1, out=gradient)
    return _yolo(pred, target, centre, size)


@REGRESSION.register("yolo")
class YOLOLoss(BoxLoss):
    """`yolo_loss` as a module.

    Args:
        centre: See `yolo_loss`.
        size: See `yolo_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> YOLOLoss(centre=0.0)(torch.tensor([[1.0, 0, 0, -2]]), torch.zeros(1, 4))
        tensor(4.)
    """

    function = staticmethod(yolo_loss)
    space: ClassVar[Space] = "deltas"

    def __init__(
        self, *, centre: NonNegative = 1.0, size: NonNegative = 1.0, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction)
        self.centre = centre
        self.size = size
