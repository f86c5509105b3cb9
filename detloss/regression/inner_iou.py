"""Inner-IoU loss: the IoU of smaller or larger boxes about the same centres."""

from torch import Tensor

from detloss.kernels import Reduction
from detloss.registry import REGRESSION, Positive
from detloss.regression.family import Composition, family_loss
from detloss.regression.members import GivenMember, MemberLoss, MemberOption, member_of


def inner_iou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    member: GivenMember = "ciou",
    ratio: float = 0.75,
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Inner-IoU loss of each pair of boxes, ``1 - IoU_ratio + sum_k R_k``.

    IoU_ratio is the IoU of both boxes with their sides times ratio, each about its own centre. The
    penalties R_k of the member, such as ``d^2 / c^2``, are those of the boxes as they are: it is
    the paper's ``L_member + IoU - IoU_ratio``.

    It is good with a ratio below 1 where boxes overlap well: IoU_ratio then falls faster as they
    part, and ends before they have. With one above 1 it is good for small objects, as larger boxes
    overlap from further away. It costs autograd, about four times as many launches as a GIoU.

    Args:
        pred: Predicted boxes (..., 4) as (x1, y1, x2, y2), floating point.
        target: Ground-truth boxes of the same shape, in the unit of `pred`: pixels or fractions
            of the image. The loss does not change with the unit.
        member: The name of a loss that is ``1 - IoU`` and penalties, or a mapping with that `type`
            and its options.
        ratio: Of the sides, > 0; the paper has 0.5 to 1.5. 1 is the member's own loss.
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
        ValueError: If the shapes differ, a last axis is not 4 or there is no such member.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is at least 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`. Copies that take (x1, y1)
        for the centre are wrong: boxes of one size hide it.

    Example:
        >>> import torch
        >>> inner_iou_loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor([0.8769])

    Reference:
        Zhang, Xu and Zhang, "Inner-IoU: More Effective Intersection over Union Loss with Auxiliary
        Bounding Box", 2023, arXiv:2311.02877.
    """
    composition = Composition(member_of(member), eps, ratio=ratio)
    return family_loss(composition, pred, target, weight=weight, reduction=reduction)


@REGRESSION.register("inner_iou")
class InnerIoULoss(MemberLoss):
    """`inner_iou_loss` as a module.

    Args:
        member: See `inner_iou_loss`.
        ratio: See `inner_iou_loss`.
        eps: See `inner_iou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> InnerIoULoss()(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor(0.8769)
    """

    function = staticmethod(inner_iou_loss)

    def __init__(
        self,
        *,
        member: MemberOption = "ciou",
        ratio: Positive = 0.75,
        eps: Positive = 1e-7,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(member, reduction)
        self.ratio = ratio
        self.eps = eps
