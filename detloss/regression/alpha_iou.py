"""Alpha-IoU loss: powers of the IoU and of each penalty."""

from torch import Tensor

from detloss.kernels import Reduction
from detloss.registry import REGRESSION, Positive
from detloss.regression.family import Composition, family_loss
from detloss.regression.members import GivenMember, MemberLoss, MemberOption, member_of


def alpha_iou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    member: GivenMember = "ciou",
    alpha: float = 3.0,
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Alpha-IoU loss of each pair of boxes, ``1 - IoU^alpha + sum_k R_k^alpha``.

    R_k are the penalties of the member, such as ``d^2 / c^2`` and ``beta v`` of CIoU, whose weight
    beta is that of the plain IoU and constant for the gradient. Each has its own power: it is not
    1 less a power of the member's overlap.

    It is good where boxes fit already and should fit better: with alpha above 1 those of a high IoU
    count more in the loss and its gradient. The price: those of a low one count less, and for
    boxes that do not overlap what is left is the power of a penalty below 1.

    Args:
        pred: Predicted boxes (..., 4) as (x1, y1, x2, y2), floating point.
        target: Ground-truth boxes of the same shape, in the unit of `pred`: pixels or fractions
            of the image. The loss does not change with the unit.
        member: The name of a loss that is ``1 - IoU`` and penalties, or a mapping with that `type`
            and its options.
        alpha: The paper's alpha. The power, > 0; 1 is the member's own loss. Another is up to
            ``max(alpha, 1)`` times as steep. A power is linear where it would be ever steeper:
            beyond a penalty of 1, and for one below 1 up to eps.
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
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`. The authors' first code,
        much copied, takes the powers of the coordinates, ``(|dx|^2a + |dy|^2a) / (Cw^2a + Ch^2a)``;
        here as in the paper, and in their code by now, it is that of ``d^2 / c^2``. Copies that
        make beta of the power of the IoU are wrong.

    Example:
        >>> import torch
        >>> alpha_iou_loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor([0.9634])

    Reference:
        He et al., "Alpha-IoU: A Family of Power Intersection over Union Losses for Bounding Box
        Regression", NeurIPS 2021, arXiv:2110.13675.
    """
    composition = Composition(member_of(member), eps, power=alpha)
    return family_loss(composition, pred, target, weight=weight, reduction=reduction)


@REGRESSION.register("alpha_iou")
class AlphaIoULoss(MemberLoss):
    """`alpha_iou_loss` as a module.

    Args:
        member: See `alpha_iou_loss`.
        alpha: See `alpha_iou_loss`.
        eps: See `alpha_iou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> AlphaIoULoss()(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor(0.9634)
    """

    function = staticmethod(alpha_iou_loss)

    def __init__(
        self,
        *,
        member: MemberOption = "ciou",
        alpha: Positive = 3.0,
        eps: Positive = 1e-7,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(member, reduction)
        self.alpha = alpha
        self.eps = eps
