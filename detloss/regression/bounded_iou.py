"""Bounded IoU loss: what IoU one coordinate allows, for each of the four."""

from functools import partial
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from detloss.boxes.lengths import Lengths, least_side
from detloss.kernels import Reduction, box_loss
from detloss.options import check_choice
from detloss.registry import REGRESSION, Positive
from detloss.regression.base import BoxLoss, Space
from detloss.regression.family import at_least_1_where
from detloss.regression.smooth_l1 import huberised

Convention = Literal["paper", "denet"]
CONVENTIONS = get_args(Convention)


def bounded_iou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    beta: float = 0.2,
    convention: Convention = "paper",
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Bounded IoU loss of each pair of boxes, the smooth L1 of ``1 - B`` over four bounds B.

    ``B_x = max(0, (wt - 2 |dx|) / (wt + 2 |dx|))`` for the offset dx of the centres, ``B_w = min(w
    / wt, wt / w)``, and the same of y and h. B_w is the IoU where the other three are right. Smooth
    L1 is ``x^2 / (2 beta)`` below beta and ``x - beta / 2`` above.

    It is good where smooth L1 on deltas works and should know of the IoU: the four terms are apart,
    and each is measured by the target's sides. The price: beyond half a side an offset has no
    gradient; and it costs autograd, about three times as many launches as a GIoU.

    Args:
        pred: Predicted boxes (..., 4) as (x1, y1, x2, y2), floating point.
        target: Ground-truth boxes of the same shape, in the unit of `pred`: pixels or fractions
            of the image. The loss does not change with the unit.
        beta: Where smooth L1 turns from quadratic to linear, > 0.
            It is 0.2 in mmdet, 1 in DeNet.
        convention: What it follows where implementations differ. "paper": B_x as above, and as in
            mmdet, which adds an eps of 1e-3 to every denominator. "denet": as the paper's authors
            have corrected it in their code, ``(wt - |dx|) / (wt + |dx|)``, the IoU where the other
            three are right, and below 0 where a box is off by more than wt, so that it is pulled
            from there, too.
        eps: Square of the least side of a target, in the unit of the boxes: a shorter side counts
            as that long, so that no gradient exceeds ``10 / sqrt(eps)``. Make it smaller where
            objects are: 1e-7 is 0.4 px of a 1280 px image in fractions.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss in [0, 4], for "denet" in [0, 6]: 0 for identical boxes without a side below sqrt(eps).
        It is not symmetric. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If a box tensor is not floating point.
        ValueError: If the shapes differ, a last axis is not 4 or the convention is unknown.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is at least 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`.

    Example:
        >>> import torch
        >>> bounded_iou_loss(torch.tensor([[1.0, 1, 3, 3]]), torch.tensor([[0.0, 0, 4, 4]]))
        tensor([0.8000])

    Reference:
        Tychsen-Smith and Petersson, "Improving Object Localization with Fitness NMS and Bounded IoU
        Loss", CVPR 2018, arXiv:1711.00164.
    """
    check_choice("convention", convention, CONVENTIONS)
    formula = partial(_bounded_iou_loss, beta=beta, convention=convention, eps=eps)
    return box_loss(formula, pred, target, weight=weight, reduction=reduction)


def _bounded_iou_loss(
    pred: Tensor, target: Tensor, beta: float, convention: Convention, eps: float
) -> Tensor:
    pairs = Lengths(pred, target, least_side(eps))
    sides, true_sides = pairs.sides, pairs.target_sides
    distance = pairs.offset.abs() * (2 if convention == "paper" else 1)
    # 1 - B, without the difference: of (t - d) / (t + d) it is 2 d / (t + d), of the sides the
    # difference over the longer one
    of_offset = 2 * distance / (true_sides + distance)
    if convention == "paper":
        of_offset = torch.minimum(of_offset, distance.new_ones(()))
    of_sides = (sides - true_sides).abs() / torch.maximum(sides, true_sides)
    x, y = (huberised(of_offset, beta) + huberised(of_sides, beta)).unbind()
    return at_least_1_where(pairs.any_inverted, x + y) + pairs.turning


@REGRESSION.register("bounded_iou")
class BoundedIoULoss(BoxLoss):
    """`bounded_iou_loss` as a module.

    Args:
        beta: See `bounded_iou_loss`.
        convention: See `bounded_iou_loss`.
        eps: See `bounded_iou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> BoundedIoULoss(beta=1.0)(torch.tensor([[1.0, 1, 3, 3]]), torch.tensor([[0.0, 0, 4, 4]]))
        tensor(0.2500)
    """

    function = staticmethod(bounded_iou_loss)
    space: ClassVar[Space] = "boxes"

    def __init__(
        self,
        *,
        beta: Positive = 0.2,
        convention: Convention = "paper",
        eps: Positive = 1e-7,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        self.beta = beta
        self.convention = convention
        self.eps = eps
