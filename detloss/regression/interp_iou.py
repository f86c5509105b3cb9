"""InterpIoU loss: the IoU of a box between prediction and target, too."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

from annotated_types import Len
from torch import Tensor

from detloss.boxes.lengths import Lengths
from detloss.kernels import Reduction
from detloss.registry import REGRESSION, Fraction, Positive
from detloss.regression.base import BoxLoss, Space
from detloss.regression.family import Composition, family_loss
from detloss.regression.members import member

Bounds = Annotated[Sequence[Fraction], Len(2, 2)]


def interp_iou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    alpha: float | Sequence[float] = 0.98,
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """InterpIoU loss of each pair of boxes, ``1 - IoU(A, B) + 1 - IoU(Q, B)``.

    ``Q = (1 - alpha) A + alpha B`` lies between the prediction A and the target B. It overlaps the
    target unless the two are very far apart, so there is a gradient, along the line to the target
    and without growing the box.

    It is good where boxes often miss their targets and should not grow to meet them. It costs
    autograd, about three times as many launches as a GIoU.

    Args:
        pred: Predicted boxes (..., 4) as (x1, y1, x2, y2), floating point.
        target: Ground-truth boxes of the same shape, in the unit of `pred`: pixels or fractions
            of the image. The loss does not change with the unit.
        alpha: The paper's alpha. How near to the target the box between lies, in [0, 1]. Two
            numbers make it the Dynamic InterpIoU: alpha is ``1 - IoU``, constant for the gradient,
            at least the first and at most the second; the authors' code has 0.6 and 0.99.
        eps: Square of the least side of a target, in the unit of the boxes: a shorter side counts
            as that long, so that no gradient exceeds ``10 / sqrt(eps)``. Make it smaller where
            objects are: 1e-7 is 0.4 px of a 1280 px image in fractions.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss in [0, 2]: 0 for identical boxes without a side below sqrt(eps). float16 and bfloat16
        are computed in float32.

    Raises:
        TypeError: If a box tensor is not floating point.
        ValueError: If the shapes differ, a last axis is not 4, or two alphas are not in order.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is at least 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`. Copies in which alpha is
        the share of the prediction have no gradient where boxes are apart.

    Example:
        >>> import torch
        >>> interp_iou_loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[10.0, 10, 12, 14]]))
        tensor([1.2720])
        >>> box, target = torch.tensor([[1.0, 1, 3, 3]]), torch.tensor([[0.0, 0, 4, 4]])
        >>> interp_iou_loss(box, target, alpha=(0.6, 0.99))  # 3/4 of the way, as the IoU is 1/4
        tensor([0.9844])

    Reference:
        Liu and Watanabe, "InterpIoU: Rethinking Bounding Box Regression with Interpolation-Based
        IoU Optimization", 2025, arXiv:2507.12420.
    """
    check_alpha(alpha)
    composition = Composition(INTERP_IOU.having(alpha=alpha), eps)
    return family_loss(composition, pred, target, weight=weight, reduction=reduction)


def check_alpha(alpha: float | Sequence[float]) -> None:
    """Raises ValueError where it is two numbers that are not in order."""
    if isinstance(alpha, Sequence) and (len(alpha) != 2 or alpha[0] > alpha[1]):
        raise ValueError(f"alpha must be a number, or the least and the largest, got {alpha}")


def _penalties(pairs: Lengths, alpha: float | Sequence[float] = 0.98) -> tuple[Tensor, ...]:
    if isinstance(alpha, Sequence):
        return (1 - pairs.between_iou((1 - pairs.iou.detach()).clamp(*alpha)),)
    return (1 - pairs.between_iou(alpha),)


INTERP_IOU = member("interp_iou", _penalties)


@REGRESSION.register("interp_iou")
class InterpIoULoss(BoxLoss):
    """`interp_iou_loss` as a module.

    Args:
        alpha: See `interp_iou_loss`.
        eps: See `interp_iou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> InterpIoULoss()(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor(0.6865)
    """

    function = staticmethod(interp_iou_loss)
    space: ClassVar[Space] = "boxes"

    def __init__(
        self,
        *,
        alpha: Fraction | Bounds = 0.98,
        eps: Positive = 1e-7,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        check_alpha(alpha)
        self.alpha = alpha
        self.eps = eps
