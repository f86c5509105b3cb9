"""Complete IoU loss: IoU, the distance of the centres and the aspect ratio."""

import math
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from detloss.boxes.lengths import TINY, Lengths
from detloss.kernels import Reduction
from detloss.kernels.box_pairs import BoxPairs, Penalty, Product, squared_length_
from detloss.options import check_choice
from detloss.registry import REGRESSION, Positive
from detloss.regression.base import BoxLoss, Space
from detloss.regression.family import Composition, family_loss
from detloss.regression.members import member
from detloss.regression.penalties import centre_distance, centre_distance_with_gradient

Convention = Literal["paper", "mmdet"]
CONVENTIONS = get_args(Convention)


def ciou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    convention: Convention = "paper",
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Complete IoU loss of each pair of boxes, ``1 - CIoU``.

    ``CIoU = IoU - d^2 / c^2 - alpha v``: d the distance of the two centres, c the diagonal of the
    smallest box around A and B, ``v = 4 / pi^2 (atan(wt / ht) - atan(w / h))^2`` and ``alpha = v /
    (1 - IoU + v)``. Alpha is a weight and carries no gradient, as in the authors' code. The
    gradient of v is ``dv/dw = -k h``, ``dv/dh = k w``, ``k = 8 / pi^2 (atan(wt / ht) - atan(w / h))
    / (w^2 + h^2)``. The paper's implementation drops that last denominator; it is kept here.

    It is good where boxes have to be tight: once the centres agree, it still has a term for the
    shape, which neither IoU nor the distance tells from the size.

    Args:
        pred: Predicted boxes (..., 4) as (x1, y1, x2, y2), floating point.
        target: Ground-truth boxes of the same shape, in the unit of `pred`: pixels or fractions
            of the image. The loss does not change with the unit.
        convention: What it follows where implementations differ. "paper": alpha counts everywhere.
            "mmdet": above an IoU of 0.5 alone, as in the code of the second of the papers below.
        eps: Square of the least side of a target, in the unit of the boxes: a shorter side counts
            as that long, so that no gradient exceeds ``10 / sqrt(eps)``. Make it smaller where
            objects are: 1e-7 is 0.4 px of a 1280 px image in fractions.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss in [0, 2.5): 0 for identical boxes without a side below sqrt(eps). float16 and bfloat16
        are computed in float32.

    Raises:
        TypeError: If a box tensor is not floating point.
        ValueError: If the shapes differ, a last axis is not 4 or the convention is unknown.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is at least 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`.

    Example:
        >>> import torch
        >>> ciou_loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 1, 2, 2]]))
        tensor([1.2500])

    Reference:
        Zheng et al., "Distance-IoU Loss", AAAI 2020, arXiv:1911.08287; "Enhancing Geometric Factors
        in Model Learning and Inference for Object Detection and Instance Segmentation", IEEE
        Transactions on Cybernetics 52, 2022, arXiv:2005.03572.
    """
    check_choice("convention", convention, CONVENTIONS)
    composition = Composition(CIOU.having(convention=convention), eps)
    return family_loss(composition, pred, target, weight=weight, reduction=reduction)


def _penalties(pairs: Lengths, convention: Convention = "paper") -> tuple[Tensor, ...]:
    """The distance of the centres; alpha v, where alpha carries no gradient."""
    v = (4 / math.pi**2) * (_angle(pairs.target_sides, pairs) - _angle(pairs.sides, pairs)).square()
    with torch.no_grad():
        alpha = v / (1 - pairs.iou + v).clamp(min=TINY)
        if convention == "mmdet":
            alpha = alpha * (pairs.iou > 0.5)
    return centre_distance(pairs), alpha * v


def _angle(sides: Tensor, pairs: Lengths) -> Tensor:
    """``atan(w / h)``, of a flat box too.

    The height is raised until width and height sum to the least side, so that the gradient is
    bounded, even at a point. The rise itself carries no gradient.
    """
    width, height = sides.unbind()
    raised = torch.maximum(height, pairs.min_size - width)
    return torch.atan2(width, height + (raised - height).detach())


def _fused(pairs: BoxPairs, convention: Convention = "paper") -> tuple[Penalty, ...]:
    widths, heights = pairs.sides_with_raised_height()
    angle, target_angle = torch.atan2(widths, heights).unbind()
    difference = target_angle.sub_(angle)
    squared, scale = difference.square(), 4 / math.pi**2  # v is scale times squared
    per_v = squared / torch.add(pairs.distance, squared, alpha=scale).clamp_(min=TINY)
    if convention == "mmdet":
        per_v.mul_(pairs.iou > 0.5)
    # d atan2(w, h) is (h dw - w dh) / (w^2 + h^2)
    sides = torch.stack([-heights[0], widths[0]], dim=1).transpose(0, 1)
    turn = difference.mul_(per_v).div_(squared_length_(sides))
    aspect = Penalty(Product(per_v, squared, scale**2), sides=Product(sides, turn, 2 * scale**2))
    return centre_distance_with_gradient(pairs), aspect


CIOU = member("ciou", _penalties, _fused)


@REGRESSION.register("ciou")
class CIoULoss(BoxLoss):
    """`ciou_loss` as a module.

    Args:
        convention: See `ciou_loss`.
        eps: See `ciou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> CIoULoss()(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor(0.7436)
    """

    function = staticmethod(ciou_loss)
    space: ClassVar[Space] = "boxes"

    def __init__(
        self,
        *,
        convention: Convention = "paper",
        eps: Positive = 1e-7,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        self.convention = convention
        self.eps = eps
