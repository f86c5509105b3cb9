"""Focal EIoU loss: EIoU that counts the more, the better a box fits already."""

from functools import partial
from typing import ClassVar

from torch import Tensor

from detloss.boxes.lengths import Lengths
from detloss.kernels import Reduction
from detloss.kernels.box_pairs import BoxPairs
from detloss.registry import REGRESSION, NonNegative, Positive
from detloss.regression.base import BoxLoss, Space
from detloss.regression.eiou import EIOU
from detloss.regression.family import Composition, family_loss


def focal_eiou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    gamma: float = 0.5,
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Focal Efficient IoU loss of each pair of boxes, ``IoU^gamma EIoU loss``.

    The factor carries no gradient: with one, the loss would fall as a box leaves its target, and
    push away every box of an IoU below about 0.3.

    It is good where many of the matched boxes are poor and their gradients drown those of the good
    ones. Boxes that do not overlap count nothing, so it comes beside a matcher that needs an
    overlap, or beside another term.

    Args:
        pred: Predicted boxes (..., 4) as (x1, y1, x2, y2), floating point.
        target: Ground-truth boxes of the same shape, in the unit of `pred`: pixels or fractions
            of the image. The loss does not change with the unit.
        gamma: Power of the IoU, >= 0. With 0 it is the EIoU loss.
        eps: Square of the least side of a target, in the unit of the boxes: a shorter side counts
            as that long, so that no gradient exceeds ``10 / sqrt(eps)``. Make it smaller where
            objects are: 1e-7 is 0.4 px of a 1280 px image in fractions.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss in [0, 3.25): 0 for identical boxes without a side below sqrt(eps), and for boxes that
        do not overlap. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If a box tensor is not floating point.
        ValueError: If the shapes differ or a last axis is not 4.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is at least 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`. Copies with the factor
        ``1 - IoU^gamma`` have the opposite sense.

        One reading of the paper divides a batch by the sum of its factors. That is the factor's
        mean as a normalizer; here, as in all code that was seen, the losses are multiplied and no
        more.

    Example:
        >>> import torch
        >>> focal_eiou_loss(torch.tensor([[1.0, 1, 3, 3]]), torch.tensor([[0.0, 0, 4, 4]]))
        tensor([0.6250])

    Reference:
        Zhang et al., "Focal and Efficient IOU Loss for Accurate Bounding Box Regression",
        Neurocomputing 2022, arXiv:2101.08158.
    """
    composition = Composition(EIOU, eps, gain=partial(power_of_iou, gamma=gamma))
    return family_loss(composition, pred, target, weight=weight, reduction=reduction)


def power_of_iou(pairs: Lengths | BoxPairs, gamma: float) -> Tensor:
    """The factor, (...,)."""
    return pairs.iou.pow(gamma)


@REGRESSION.register("focal_eiou")
class FocalEIoULoss(BoxLoss):
    """`focal_eiou_loss` as a module.

    Args:
        gamma: See `focal_eiou_loss`.
        eps: See `focal_eiou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> FocalEIoULoss()(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor(0.4293)
    """

    function = staticmethod(focal_eiou_loss)
    space: ClassVar[Space] = "boxes"

    def __init__(
        self, *, gamma: NonNegative = 0.5, eps: Positive = 1e-7, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction)
        self.gamma = gamma
        self.eps = eps
