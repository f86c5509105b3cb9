"""Any combination of what the IoU losses do to an overlap and to penalties."""

from functools import partial

from torch import Tensor

from detloss.kernels import Reduction
from detloss.options import check_choice
from detloss.registry import REGRESSION, Fraction, NonNegative, Positive
from detloss.regression.family import COST_MODES, Composition, CostMode, check_interval, family_loss
from detloss.regression.focal_eiou import power_of_iou
from detloss.regression.members import GivenMember, MemberLoss, MemberOption, member_of


def composed_iou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    member: GivenMember = "ciou",
    ratio: float = 1.0,
    low: float = 0.0,
    high: float = 1.0,
    mode: CostMode = "linear",
    alpha: float = 1.0,
    gamma: float = 0.0,
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Composed IoU loss of each pair of boxes, ``IoU^gamma (cost(F) + sum_k R_k^alpha)``.

    ``F = (IoU_ratio - low) / (high - low)``, at least 0 and at most 1, is what an Inner-IoU and a
    Focaler-IoU make of the overlap; ``cost(x)`` is ``1 - x^alpha``, or by the mode ``-ln x`` or ``1
    - x^2``; R_k are the penalties of the member, each with the power of an alpha-IoU; ``IoU^gamma``
    is the factor of a focal EIoU, constant for the gradient. Each option's default changes nothing.

    It is good where a published recipe combines two of these. One of them alone has a loss of its
    own name. It costs what the dearest part does; a ratio other than 1 costs autograd.

    Args:
        pred: Predicted boxes (..., 4) as (x1, y1, x2, y2), floating point.
        target: Ground-truth boxes of the same shape, in the unit of `pred`: pixels or fractions
            of the image. The loss does not change with the unit.
        member: The name of a loss that is ``1 - IoU`` and penalties, or a mapping with that `type`
            and its options.
        ratio: Of the sides, > 0; the paper has 0.5 to 1.5. 1 is the member's own loss.
        low: IoU below which the overlap counts as 0, in [0, 1).
        high: IoU above which it counts as 1, above `low` and at most 1.
        mode: "linear", "log" or "square".
        alpha: The paper's alpha. The power, > 0, of the penalties and in the "linear" mode of the
            overlap; all of it is up to ``max(alpha, 2) / (high - low)`` times as steep as a member.
        gamma: Power of the IoU, >= 0. With 0 there is no factor.
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
        ValueError: If the shapes differ, a last axis is not 4, there is no such member or mode, or
            `low` is not below `high`.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is at least 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`.

    Example:
        >>> import torch
        >>> box, target = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]])
        >>> composed_iou_loss(box, target, member="siou", ratio=0.75)  # an Inner-SIoU
        tensor([0.8996])

    Reference:
        Zhang, Xu and Zhang, "Inner-IoU", 2023, arXiv:2311.02877; Zhang and Zhang, "Focaler-IoU",
        2024, arXiv:2401.10525; He et al., "Alpha-IoU", NeurIPS 2021, arXiv:2110.13675; Zhang et
        al., "Focal and Efficient IOU Loss", Neurocomputing 2022, arXiv:2101.08158.
    """
    check_interval(low, high)
    check_choice("mode", mode, COST_MODES)
    composition = Composition(
        member_of(member),
        eps,
        ratio=ratio,
        low=low,
        high=high,
        mode=mode,
        power=alpha,
        gain=partial(power_of_iou, gamma=gamma) if gamma else None,
    )
    return family_loss(composition, pred, target, weight=weight, reduction=reduction)


@REGRESSION.register("composed_iou")
class ComposedIoULoss(MemberLoss):
    """`composed_iou_loss` as a module.

    Args:
        member: See `composed_iou_loss`.
        ratio: See `composed_iou_loss`.
        low: See `composed_iou_loss`.
        high: See `composed_iou_loss`.
        mode: See `composed_iou_loss`.
        alpha: See `composed_iou_loss`.
        gamma: See `composed_iou_loss`.
        eps: See `composed_iou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> loss = ComposedIoULoss(member="siou", ratio=0.75)
        >>> loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor(0.8996)
    """

    function = staticmethod(composed_iou_loss)

    def __init__(
        self,
        *,
        member: MemberOption = "ciou",
        ratio: Positive = 1.0,
        low: Fraction = 0.0,
        high: Fraction = 1.0,
        mode: CostMode = "linear",
        alpha: Positive = 1.0,
        gamma: NonNegative = 0.0,
        eps: Positive = 1e-7,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(member, reduction)
        check_interval(low, high)
        self.ratio = ratio
        self.low = low
        self.high = high
        self.mode = mode
        self.alpha = alpha
        self.gamma = gamma
        self.eps = eps
