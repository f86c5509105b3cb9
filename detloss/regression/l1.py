"""L1 loss on deltas."""

from typing import ClassVar

import torch
from torch import Tensor

from detloss.kernels import Reduction, box_loss
from detloss.registry import REGRESSION
from detloss.regression.base import BoxLoss, Space


def l1_loss(
    pred: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Absolute difference of deltas, summed over the four coordinates of a row.

    ``L = sum_i |d_i|``, ``d = pred - target``. Gradient ``sign(d)``: of the same size however
    small the error, 0 at ``d = 0``.

    It is good where some targets are wrong or out of reach: an error of ten counts ten times as
    much as one of 1, not a hundred times.

    Args:
        pred: Predicted deltas (..., 4), floating point, any unit.
        target: True deltas of the same shape.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss >= 0. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If a tensor is not floating point.
        ValueError: If the shapes differ or a last axis is not 4.

    Example:
        >>> import torch
        >>> l1_loss(torch.tensor([[1.0, 0, 0, -2]]), torch.zeros(1, 4))
        tensor([3.])

    Reference:
        Girshick, "Fast R-CNN", ICCV 2015, arXiv:1504.08083: the outer part of smooth L1. It is the
        box loss of torchvision's RetinaNet.
    """
    return box_loss(_l1, pred, target, fused=_fused, weight=weight, reduction=reduction)


def _l1(pred: Tensor, target: Tensor) -> Tensor:
    return (pred - target).abs().sum(-1)


def _fused(pred: Tensor, gradient: Tensor | None, target: Tensor) -> Tensor:
    """`_l1` of deltas (N, 4), as (N,); its gradient is written over `gradient` (N, 4)."""
    difference = pred - target
    if gradient is not None:
        torch.sign(difference, out=gradient)
    return difference.abs_().sum(-1)


@REGRESSION.register("l1")
class L1Loss(BoxLoss):
    """`l1_loss` as a module.

    Args:
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> L1Loss()(torch.tensor([[1.0, 0, 0, -2]]), torch.tensor([[0.5, 0, 0, 0]]))
        tensor(2.5000)
    """

    function = staticmethod(l1_loss)
    space: ClassVar[Space] = "deltas"

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
