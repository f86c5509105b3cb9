"""Efficient IoU loss: IoU, the distance of the centres and the differences of the sides."""

from typing import ClassVar

from torch import Tensor

from detloss.boxes.lengths import Lengths
from detloss.kernels import Reduction
from detloss.kernels.box_pairs import BoxPairs, Penalty, Product
from detloss.registry import REGRESSION, Positive
from detloss.regression.base import BoxLoss, Space
from detloss.regression.family import Composition, family_loss
from detloss.regression.members import member
from detloss.regression.penalties import centre_distance, centre_distance_with_gradient


def eiou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Efficient IoU loss of each pair of boxes.

    ``L = 1 - IoU + d^2 / c^2 + (w - wt)^2 / Cw^2 + (h - ht)^2 / Ch^2``: d the distance of the two
    centres; Cw, Ch and c width, height and diagonal of the smallest box around both. Nothing in it
    is constant for the gradient.

    It is good where the aspect ratio of CIoU is too little: that is the same for all boxes of one
    shape, however large they are, and moves width and height against each other. Here each side
    has a term of its own. The price: all three terms fall as the box around both grows, so a
    prediction far away grows.

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
        Loss in [0, 3.25): 0 for identical boxes without a side below sqrt(eps). float16 and
        bfloat16 are computed in float32.

    Raises:
        TypeError: If a box tensor is not floating point.
        ValueError: If the shapes differ or a last axis is not 4.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is at least 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`. The name is also in use
        for `extended_iou_loss`, in mmdet. Copies that have the offset of the centres in the terms
        of the sides are wrong: 0.75 for the boxes below, not 1.25.

    Example:
        >>> import torch
        >>> eiou_loss(torch.tensor([[1.0, 1, 3, 3]]), torch.tensor([[0.0, 0, 4, 4]]))
        tensor([1.2500])

    Reference:
        Zhang et al., "Focal and Efficient IOU Loss for Accurate Bounding Box Regression",
        Neurocomputing 2022, arXiv:2101.08158.
    """
    composition = Composition(EIOU, eps)
    return family_loss(composition, pred, target, weight=weight, reduction=reduction)


def _penalties(pairs: Lengths) -> tuple[Tensor, ...]:
    shares = (pairs.sides - pairs.target_sides) / pairs.hull_sides
    width, height = (shares * shares).unbind()
    return centre_distance(pairs), width, height


def _fused(pairs: BoxPairs) -> tuple[Penalty, ...]:
    per_hull = pairs.hull_sides.reciprocal()
    shares = (pairs.sides - pairs.target_sides).mul_(per_hull)
    squares = shares * shares
    difference = Penalty(
        squares,
        sides=Product(shares, per_hull, 2),
        hull_sides=Product(squares, per_hull, -2),
    )
    return centre_distance_with_gradient(pairs), difference


EIOU = member("eiou", _penalties, _fused)


@REGRESSION.register("eiou")
class EIoULoss(BoxLoss):
    """`eiou_loss` as a module.

    Args:
        eps: See `eiou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> EIoULoss()(torch.tensor([[0.0, 0, 4, 1]]), torch.tensor([[0.0, 0, 1, 4]]))
        tensor(2.1228)
    """

    function = staticmethod(eiou_loss)
    space: ClassVar[Space] = "boxes"

    def __init__(self, *, eps: Positive = 1e-7, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.eps = eps
