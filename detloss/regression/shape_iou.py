"""Shape-IoU loss: IoU, distance and sides, weighed by the shape of the target."""

from typing import ClassVar

import torch
from torch import Tensor

from detloss.boxes.lengths import Lengths, squared_length
from detloss.kernels import Reduction
from detloss.registry import REGRESSION, Positive
from detloss.regression.base import BoxLoss, Space
from detloss.regression.family import Composition, family_loss
from detloss.regression.members import member
from detloss.regression.penalties import side_cost


def shape_iou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    scale: float = 0.0,
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Shape-IoU loss of each pair of boxes, ``1 - IoU + D + S / 2``.

    With ``ww = 2 wt^s / (wt^s + ht^s)`` and ``hh = 2 ht^s / (wt^s + ht^s)`` of the target's sides:

    - distance ``D = (hh dx^2 + ww dy^2) / c^2``, dx and dy from one centre to the other, c the
      diagonal of the smallest box around both;
    - sides ``S = (1 - exp(-hh |w - wt| / max(w, wt)))^4`` and that of the heights, with ww.

    It is good for objects that are long one way: an offset or a difference along their short side
    counts more, since it costs more IoU. With a scale of 0 all directions count alike. It costs
    autograd, about four times as many launches as a GIoU.

    Args:
        pred: Predicted boxes (..., 4) as (x1, y1, x2, y2), floating point.
        target: Ground-truth boxes of the same shape, in the unit of `pred`: pixels or fractions
            of the image. The loss does not change with the unit.
        scale: The power s of the target's sides; the paper has one for each data set, larger for
            smaller objects.
        eps: Square of the least side of a target, in the unit of the boxes: a shorter side counts
            as that long, so that no gradient exceeds ``10 / sqrt(eps)``. Make it smaller where
            objects are: 1e-7 is 0.4 px of a 1280 px image in fractions.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss in [0, 4): 0 for identical boxes without a side below sqrt(eps); below 2.16 with a
        scale of 0. It is not symmetric. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If a box tensor is not floating point.
        ValueError: If the shapes differ or a last axis is not 4.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is at least 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`.

    Example:
        >>> import torch
        >>> shape_iou_loss(torch.tensor([[0.0, 0, 4, 1]]), torch.tensor([[0.0, 0, 1, 4]]))
        tensor([1.0753])

    Reference:
        Zhang and Zhang, "Shape-IoU: More Accurate Metric considering Bounding Box Shape and Scale",
        2023, arXiv:2312.17663; the equations are those of the authors' code.
    """
    composition = Composition(SHAPE_IOU.having(scale=scale), eps)
    return family_loss(composition, pred, target, weight=weight, reduction=reduction)


def _penalties(pairs: Lengths, scale: float = 0.0) -> tuple[Tensor, ...]:
    width, height = pairs.target_sides.unbind()
    across = (width / height) ** scale
    weights = torch.stack([2 / (1 + across), 2 / (1 + 1 / across)])  # hh for x, ww for y
    x, y = (weights * pairs.offset * pairs.offset).unbind()
    distance = (x + y) / squared_length(pairs.hull_sides)
    return distance, side_cost(pairs, 4.0, weights) / 2


SHAPE_IOU = member("shape_iou", _penalties)


@REGRESSION.register("shape_iou")
class ShapeIoULoss(BoxLoss):
    """`shape_iou_loss` as a module.

    Args:
        scale: See `shape_iou_loss`.
        eps: See `shape_iou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> ShapeIoULoss(scale=1.0)(torch.tensor([[0.0, 0, 4, 1]]), torch.tensor([[0.0, 0, 1, 4]]))
        tensor(1.1193)
    """

    function = staticmethod(shape_iou_loss)
    space: ClassVar[Space] = "boxes"

    def __init__(
        self, *, scale: float = 0.0, eps: Positive = 1e-7, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction)
        self.scale = scale
        self.eps = eps
