"""Distance IoU loss: IoU and how far apart the centres are."""

from typing import ClassVar

from torch import Tensor

from detloss.boxes.lengths import Lengths
from detloss.kernels import Reduction
from detloss.kernels.box_pairs import BoxPairs, Penalty
from detloss.registry import REGRESSION, Positive
from detloss.regression.base import BoxLoss, Space
from detloss.regression.family import Composition, family_loss
from detloss.regression.members import member
from detloss.regression.penalties import centre_distance, centre_distance_with_gradient


def diou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Distance IoU loss of each pair of boxes, ``1 - DIoU``.

    ``DIoU = IoU - d^2 / c^2``: d the distance of the two centres, c the diagonal of the smallest
    box around A and B. Where the boxes do not touch, the second quotient still has a gradient:
    it moves the predicted box straight towards the other centre.

    It is good where predictions start far from their targets or lie inside them: it needs fewer
    steps than a loss that first has to grow the box.

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
        Loss in [0, 2): 0 for identical boxes without a side below sqrt(eps), towards 2 far apart.
        float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If a box tensor is not floating point.
        ValueError: If the shapes differ or a last axis is not 4.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is at least 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`.

    Example:
        >>> import torch
        >>> diou_loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 1, 2, 2]]))
        tensor([1.2500])

    Reference:
        Zheng et al., "Distance-IoU Loss", AAAI 2020, arXiv:1911.08287.
    """
    composition = Composition(DIOU, eps)
    return family_loss(composition, pred, target, weight=weight, reduction=reduction)


def _penalties(pairs: Lengths) -> tuple[Tensor, ...]:
    return (centre_distance(pairs),)


def _fused(pairs: BoxPairs) -> tuple[Penalty, ...]:
    return (centre_distance_with_gradient(pairs),)


DIOU = member("diou", _penalties, _fused)


@REGRESSION.register("diou")
class DIoULoss(BoxLoss):
    """`diou_loss` as a module.

    Args:
        eps: See `diou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> DIoULoss()(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor(0.7436)
    """

    function = staticmethod(diou_loss)
    space: ClassVar[Space] = "boxes"

    def __init__(self, *, eps: Positive = 1e-7, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.eps = eps
