"""SIoU loss: IoU, an angle, the distance along the axes and the sides."""

import math
from functools import partial
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from detloss.boxes.lengths import TINY, Lengths, least_side, squared_length
from detloss.kernels import Reduction, box_loss
from detloss.kernels.box_pairs import BoxPairs, Penalty, Product
from detloss.options import check_choice
from detloss.registry import REGRESSION, AtLeastOne, Positive
from detloss.regression.base import BoxLoss, Space
from detloss.regression.family import Composition, at_least_1_where, family_loss
from detloss.regression.members import member
from detloss.regression.penalties import side_cost, side_cost_with_gradient

Convention = Literal["paper", "mmdet"]
CONVENTIONS = get_args(Convention)


def siou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    theta: float = 4.0,
    convention: Convention = "paper",
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """SIoU loss of each pair of boxes, ``1 - IoU + (D + S) / 2``.

    With dx, dy from one centre to the other and Cw, Ch the sides of the smallest box around both:

    - angle ``A = sin 2a = 2 |dx| |dy| / (dx^2 + dy^2)``, a between the line of the centres and an
      axis: 0 along an axis, 1 half-way between two;
    - distance ``D = 2 - exp(-g dx^2 / Cw^2) - exp(-g dy^2 / Ch^2)``, ``g = 2 - A``: where one
      offset is nearly 0, the other one counts more;
    - sides ``S = (1 - exp(-|w - wt| / max(w, wt)))^theta`` and the same of the heights.

    It is good where boxes should first come onto one axis with their target and then along it. It
    costs about half as much again as a GIoU; and as D falls with the hull, a box far away grows.
    ``A`` is the paper's ``1 - 2 sin^2(arcsin(|dy| / d) - pi / 4)`` without its arcsine, whose
    gradient is not finite for two centres on one axis. Nothing is constant for the gradient.

    Args:
        pred: Predicted boxes (..., 4) as (x1, y1, x2, y2), floating point.
        target: Ground-truth boxes of the same shape, in the unit of `pred`: pixels or fractions
            of the image. The loss does not change with the unit.
        theta: Power of the cost of the sides, at least 1; the paper has 2 to 6.
        convention: What it follows where implementations differ. "paper": as above. "mmdet": the
            default there, ``neg_gamma=False``: g has the other sign, ``D = 2 - exp(g dx^2 / Cw^2) -
            exp(g dy^2 / Ch^2)``, and the loss is cut to [0, 2]. That D falls as the centres part:
            the loss of boxes far apart is 0, without a gradient.
        eps: Square of the least side of a target, in the unit of the boxes: a shorter side counts
            as that long, so that no gradient exceeds ``10 / sqrt(eps)``. Make it smaller where
            objects are: 1e-7 is 0.4 px of a 1280 px image in fractions.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss in [0, 2.03): 0 for identical boxes without a side below sqrt(eps). float16 and
        bfloat16 are computed in float32.

    Raises:
        TypeError: If a box tensor is not floating point.
        ValueError: If the shapes differ, a last axis is not 4 or the convention is unknown.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is at least 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`. Copies that add an eps to
        the offsets give two boxes of one centre an angle of 1; the distance is 0 all the same.

    Example:
        >>> import torch
        >>> siou_loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 1, 2, 2]]))
        tensor([1.2212])

    Reference:
        Gevorgyan, "SIoU Loss: More Powerful Learning for Bounding Box Regression", 2022,
        arXiv:2205.12740.
    """
    check_choice("convention", convention, CONVENTIONS)
    if convention == "mmdet":
        formula = partial(_as_in_mmdet, theta=theta, eps=eps)
        return box_loss(formula, pred, target, weight=weight, reduction=reduction)
    composition = Composition(SIOU.having(theta=theta), eps)
    return family_loss(composition, pred, target, weight=weight, reduction=reduction)


def _penalties(pairs: Lengths, theta: float = 4.0) -> tuple[Tensor, ...]:
    return _distance(pairs, -1) / 2, side_cost(pairs, theta) / 2


def _distance(pairs: Lengths, sign: Literal[-1, 1]) -> Tensor:
    """D, with that sign of g."""
    offset = pairs.offset
    dx, dy = offset.abs().unbind()
    g = 2 - 2 * dx * dy / squared_length(offset).clamp(min=TINY)
    share = offset / pairs.hull_sides
    x, y = (1 - torch.exp(sign * g * share * share)).unbind()
    return x + y


def _as_in_mmdet(pred: Tensor, target: Tensor, theta: float, eps: float) -> Tensor:
    pairs = Lengths(pred, target, least_side(eps))
    loss = 1 - pairs.iou + (_distance(pairs, 1) + side_cost(pairs, theta)) / 2
    return at_least_1_where(pairs.any_inverted, loss.clamp(0, 2)) + pairs.turning


def _fused(pairs: BoxPairs, theta: float = 4.0) -> tuple[Penalty, ...]:
    offset = pairs.double_offset  # the angle is the same, other terms have a factor for it
    dx, dy = offset.unbind()
    per_hull = pairs.hull_sides.reciprocal()
    per_square, squares = per_hull * per_hull, offset * offset
    x2, y2 = squares.unbind()
    area, per_length = dx * dy, (x2 + y2).clamp_(min=TINY).reciprocal_()
    half_angle = area.abs().mul_(per_length)
    half_g = torch.rsub(half_angle, 1)
    shares = squares * per_square  # 4 (dx / Cw)^2
    falling = (shares * (half_g * (-0.5 * math.log2(math.e)))).exp2_()
    x, y = falling.unbind()
    value = torch.rsub(x + y, 1, alpha=0.5)
    x, y = shares.mul_(falling).unbind()
    # d A / d dx = 2 |dx dy| / dx * (dy^2 - dx^2) / (dx^2 + dy^2)^2, and g falls as A grows
    by_angle = (x + y).mul_(per_length).mul_(per_length).mul_(y2 - x2).mul_(area.sign_())
    by_share = falling.mul_(half_g).mul_(per_square)
    by_offset = by_share * offset
    x, y = by_offset.unbind()
    x.addcmul_(by_angle, dy, value=-0.5)
    y.addcmul_(by_angle, dx, value=0.5)
    distances = Penalty(
        value, offset=by_offset, hull_sides=Product(by_share.mul_(squares), per_hull, -0.5)
    )
    return distances, side_cost_with_gradient(pairs, theta)


SIOU = member("siou", _penalties, _fused)


@REGRESSION.register("siou")
class SIoULoss(BoxLoss):
    """`siou_loss` as a module.

    Args:
        theta: See `siou_loss`.
        convention: See `siou_loss`.
        eps: See `siou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> SIoULoss()(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor(0.7663)
    """

    function = staticmethod(siou_loss)
    space: ClassVar[Space] = "boxes"

    def __init__(
        self,
        *,
        theta: AtLeastOne = 4.0,
        convention: Convention = "paper",
        eps: Positive = 1e-7,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        self.theta = theta
        self.convention = convention
        self.eps = eps
