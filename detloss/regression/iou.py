"""IoU loss, in the three forms that papers and code give it."""

from typing import ClassVar

from torch import Tensor

from detloss.boxes.lengths import Lengths
from detloss.kernels import Reduction
from detloss.kernels.box_pairs import BoxPairs, Penalty
from detloss.options import check_choice
from detloss.registry import REGRESSION, Positive
from detloss.regression.base import BoxLoss, Space
from detloss.regression.family import COST_MODES, Composition, CostMode, family_loss
from detloss.regression.members import member


def iou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    mode: CostMode = "linear",
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """IoU loss of each pair of boxes.

    ``IoU = |A n B| / |A u B|``; "linear" is ``1 - IoU``, "log" is ``-ln IoU`` (UnitBox) and
    "square" is ``1 - IoU^2``. Gradients are -1, ``-1 / IoU`` and ``-2 IoU`` times that of IoU.
    It is good where predictions overlap their targets from the start: then it trains the very
    measure that detections are judged by, with equal weight for small and large boxes. All three
    are flat where the boxes do not touch.

    Args:
        pred: Predicted boxes (..., 4) as (x1, y1, x2, y2), floating point.
        target: Ground-truth boxes of the same shape, in the unit of `pred`: pixels or fractions
            of the image. The loss does not change with the unit.
        mode: "linear", "log" or "square".
        eps: Square of the least side of a target, in the unit of the boxes: a shorter side counts
            as that long, so that no gradient exceeds ``10 / sqrt(eps)``. Make it smaller where
            objects are: 1e-7 is 0.4 px of a 1280 px image in fractions. "log" also
            takes it as the floor of the IoU, by which its gradient divides.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss in [0, 1], for "log" in [0, -ln eps]: 0 for identical boxes without a side below
        sqrt(eps). float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If a box tensor is not floating point.
        ValueError: If the shapes differ, a last axis is not 4 or the mode is unknown.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is the largest. It has a gradient that
        turns it round, see `detloss.boxes.lengths.Lengths`.

    Example:
        >>> import torch
        >>> a, b = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[0.0, 0, 2, 1]])
        >>> [round(iou_loss(a, b, mode=mode).item(), 4) for mode in ("linear", "log", "square")]
        [0.5, 0.6931, 0.75]

    Reference:
        Yu et al., "UnitBox", ACM MM 2016, arXiv:1608.01471 ("log"). "linear" is the
        L_IoU of the GIoU and DIoU papers, "square" that of YOLOX's code.
    """
    check_choice("mode", mode, COST_MODES)
    composition = Composition(IOU, eps, mode=mode)
    return family_loss(composition, pred, target, weight=weight, reduction=reduction)


def _penalties(pairs: Lengths) -> tuple[Tensor, ...]:
    return ()


def _fused(pairs: BoxPairs) -> tuple[Penalty, ...]:
    return ()


IOU = member("iou", _penalties, _fused)


@REGRESSION.register("iou")
class IoULoss(BoxLoss):
    """`iou_loss` as a module.

    Args:
        mode: See `iou_loss`.
        eps: See `iou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> IoULoss()(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor(0.6667)
    """

    function = staticmethod(iou_loss)
    space: ClassVar[Space] = "boxes"

    def __init__(
        self, *, mode: CostMode = "linear", eps: Positive = 1e-7, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction)
        self.mode = mode
        self.eps = eps
