"""Generalized IoU loss: IoU with a gradient for boxes that do not touch."""

from typing import ClassVar

import torch
from torch import Tensor

from detloss.boxes.lengths import Lengths
from detloss.kernels import Reduction
from detloss.kernels.box_pairs import BoxPairs, Penalty
from detloss.registry import REGRESSION, Positive
from detloss.regression.base import BoxLoss, Space
from detloss.regression.family import Composition, family_loss
from detloss.regression.members import member


def giou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Generalized IoU loss of each pair of boxes, ``1 - GIoU``.

    ``GIoU = |A n B| / |A u B| - (|C| - |A u B|) / |C|``, C the smallest box around A and B. Its
    gradient is that of both quotients. Where the boxes do not touch, only the second one has a
    gradient, which first grows the predicted box towards the other.

    It is good as the first choice on boxes: nothing is to be tuned, small and large boxes count
    alike, and a prediction learns even where it misses its target.

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
        Loss in [0, 2]: 0 for identical boxes without a side below sqrt(eps), 1 for touching squares
        side by side, towards 2 far apart. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If a box tensor is not floating point.
        ValueError: If the shapes differ or a last axis is not 4.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is at least 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`.

    Example:
        >>> import torch
        >>> giou_loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 1, 2, 2]]))
        tensor([1.5000])

    Reference:
        Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019, arXiv:1902.09630.
    """
    composition = Composition(GIOU, eps)
    return family_loss(composition, pred, target, weight=weight, reduction=reduction)


def _penalties(pairs: Lengths) -> tuple[Tensor, ...]:
    """The share of the hull that neither box covers."""
    _, union = pairs.shared_and_union
    empty = (pairs.hull_area - union) / pairs.hull_area
    rounded = empty.detach().clamp(max=0)  # below 0, where the hull is the union
    return (empty - rounded,)


def _fused(pairs: BoxPairs) -> tuple[Penalty, ...]:
    per_hull = pairs.hull_area.reciprocal()
    empty = (pairs.hull_area - pairs.union).mul_(per_hull)
    by_hull_area = torch.addcmul(per_hull, empty, per_hull, value=-1)  # empty is 1 - union / hull
    return (Penalty(empty.clamp_(min=0), union=-per_hull, hull_area=by_hull_area),)


GIOU = member("giou", _penalties, _fused)


@REGRESSION.register("giou")
class GIoULoss(BoxLoss):
    """`giou_loss` as a module.

    Args:
        eps: See `giou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> GIoULoss()(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor(0.6667)
    """

    function = staticmethod(giou_loss)
    space: ClassVar[Space] = "boxes"

    def __init__(self, *, eps: Positive = 1e-7, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.eps = eps
