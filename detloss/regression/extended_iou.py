"""Extended-IoU loss: an intersection that goes below 0 where boxes are apart."""

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from detloss.boxes.lengths import Lengths, least_side, product
from detloss.boxes.overlaps import OVERLAPS
from detloss.kernels import Reduction, box_loss
from detloss.registry import REGRESSION, Positive
from detloss.regression.base import BoxLoss, Space
from detloss.regression.family import at_least_1_where
from detloss.regression.smooth_l1 import huberised


def extended_iou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    beta: float = 0.1,
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Extended-IoU loss of each pair of boxes, the smooth L1 of ``1 - S / (|A| + |B| - S)``.

    With i the larger of the first corners and j the smaller of the last ones, both from the first
    corner of the smallest box around A and B, ``S = |A n B| - gx (iy + jy) - gy (ix + jx)``. The
    gap between the boxes along x is ``gx = max(ix - jx, 0)``, that along y gy. So S is the
    intersection where there is one, else an area below 0 that grows with the gap. Smooth L1 turns
    it flat for the last tenth: ``x^2 / (2 beta)`` below beta and ``x - beta / 2`` above.

    It is good where anchors often miss their object, as faces do: there is a gradient everywhere,
    and a small one where boxes fit. The price: S starts from one corner, so a mirrored pair has
    another loss; and it costs autograd, about four times as many launches as a GIoU.

    Args:
        pred: Predicted boxes (..., 4) as (x1, y1, x2, y2), floating point.
        target: Ground-truth boxes of the same shape, in the unit of `pred`: pixels or fractions
            of the image. The loss does not change with the unit.
        beta: Where smooth L1 turns from quadratic to linear, > 0.
        eps: Square of the least side of a target, in the unit of the boxes: a shorter side counts
            as that long, so that no gradient exceeds ``10 / sqrt(eps)``. Make it smaller where
            objects are: 1e-7 is 0.4 px of a 1280 px image in fractions.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss in [0, 2): 0 for identical boxes without a side below sqrt(eps), ``1 - beta / 2`` for
        boxes that touch. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If a box tensor is not floating point.
        ValueError: If the shapes differ or a last axis is not 4.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is at least 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`.

    Example:
        >>> import torch
        >>> extended_iou_loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[10.0, 10, 12, 14]]))
        tensor([1.9065])

    Reference:
        Peng and Yu, "A Systematic IoU-Related Method: Beyond Simplified Regression for Better
        Localization", IEEE Transactions on Image Processing 30, 2021; the code is
        libfacedetection.train's, and mmdet's by the name of EIoU.
    """
    formula = partial(_extended_iou_loss, beta=beta, eps=eps)
    return box_loss(formula, pred, target, weight=weight, reduction=reduction)


def extended_iou(pairs: Lengths) -> Tensor:
    """``S / (|A| + |B| - S)``, in (-1, 1]."""
    first, last = pairs.inner_ends
    signed = last - first  # the intersection's sides, or the gap below 0
    x, y = (first + last).unbind()
    shared_x, shared_y = torch.maximum(signed, signed.new_zeros(())).unbind()
    gap_x, gap_y = torch.minimum(signed, signed.new_zeros(())).unbind()
    shared = shared_x * shared_y + gap_x * y + gap_y * x
    union = product(pairs.sides) + product(pairs.target_sides) - shared
    longer = torch.maximum(*pairs.hull_sides.unbind())
    return shared / torch.maximum(union, pairs.min_size * longer)  # of flat boxes alone


def _extended_iou_loss(pred: Tensor, target: Tensor, beta: float, eps: float) -> Tensor:
    pairs = Lengths(pred, target, least_side(eps))
    loss = huberised(1 - extended_iou(pairs), beta)
    return at_least_1_where(pairs.any_inverted, loss) + pairs.turning


OVERLAPS["extended_iou"] = extended_iou


@REGRESSION.register("extended_iou")
class ExtendedIoULoss(BoxLoss):
    """`extended_iou_loss` as a module.

    Args:
        beta: See `extended_iou_loss`.
        eps: See `extended_iou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> ExtendedIoULoss()(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor(0.6167)
    """

    function = staticmethod(extended_iou_loss)
    space: ClassVar[Space] = "boxes"

    def __init__(
        self, *, beta: Positive = 0.1, eps: Positive = 1e-7, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction)
        self.beta = beta
        self.eps = eps
