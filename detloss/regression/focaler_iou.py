"""Focaler-IoU loss: the IoU counts in an interval only."""

from torch import Tensor

from detloss.kernels import Reduction
from detloss.registry import REGRESSION, Fraction, Positive
from detloss.regression.family import Composition, check_interval, family_loss
from detloss.regression.members import GivenMember, MemberLoss, MemberOption, member_of


def focaler_iou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    member: GivenMember = "iou",
    low: float = 0.0,
    high: float = 0.95,
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Focaler-IoU loss of each pair of boxes, ``1 - F + sum_k R_k``.

    ``F = (IoU - low) / (high - low)``, at least 0 and at most 1; R_k are the penalties of the
    member. It is the paper's ``L_member + IoU - F``. Outside of the interval the overlap has no
    gradient, and inside of it one up to ``1 / (high - low)`` times as steep.

    It is good with an interval of low IoUs where hard boxes should count more, with one of high
    IoUs where they should not.

    Args:
        pred: Predicted boxes (..., 4) as (x1, y1, x2, y2), floating point.
        target: Ground-truth boxes of the same shape, in the unit of `pred`: pixels or fractions
            of the image. The loss does not change with the unit.
        member: The name of a loss that is ``1 - IoU`` and penalties, or a mapping with that `type`
            and its options.
        low: IoU below which the overlap counts as 0, in [0, 1).
        high: IoU above which it counts as 1, above `low` and at most 1.
        eps: Square of the least side of a target, in the unit of the boxes: a shorter side counts
            as that long, so that no gradient exceeds ``10 / sqrt(eps)``. Make it smaller where
            objects are: 1e-7 is 0.4 px of a 1280 px image in fractions.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss >= 0: 0 for identical boxes without a side below sqrt(eps). float16 and bfloat16
        are computed in float32.

    Raises:
        TypeError: If a box tensor is not floating point.
        ValueError: If the shapes differ, a last axis is not 4, there is no such member or `low` is
            not below `high`.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is at least 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`.

    Example:
        >>> import torch
        >>> focaler_iou_loss(torch.tensor([[1.0, 1, 3, 3]]), torch.tensor([[0.0, 0, 4, 4]]))
        tensor([0.7368])

    Reference:
        Zhang and Zhang, "Focaler-IoU: More Focused Intersection over Union Loss", 2024,
        arXiv:2401.10525.
    """
    check_interval(low, high)
    composition = Composition(member_of(member), eps, low=low, high=high)
    return family_loss(composition, pred, target, weight=weight, reduction=reduction)


@REGRESSION.register("focaler_iou")
class FocalerIoULoss(MemberLoss):
    """`focaler_iou_loss` as a module.

    Args:
        member: See `focaler_iou_loss`.
        low: See `focaler_iou_loss`.
        high: See `focaler_iou_loss`.
        eps: See `focaler_iou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> FocalerIoULoss()(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor(0.6491)
    """

    function = staticmethod(focaler_iou_loss)

    def __init__(
        self,
        *,
        member: MemberOption = "iou",
        low: Fraction = 0.0,
        high: Fraction = 0.95,
        eps: Positive = 1e-7,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(member, reduction)
        check_interval(low, high)
        self.low = low
        self.high = high
        self.eps = eps
