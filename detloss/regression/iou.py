"""IoU loss, in the three forms that papers and code give it."""

from functools import partial
from typing import ClassVar, Literal, get_args

from torch import Tensor

from detloss.boxes.lengths import Lengths, least_side
from detloss.boxes.overlaps import iou
from detloss.kernels import Reduction, box_loss
from detloss.kernels.box_pairs import BoxPairs
from detloss.registry import REGRESSION, Positive
from detloss.regression.base import BoxLoss, Space

IoUMode = Literal["linear", "log", "square"]
IOU_MODES = get_args(IoUMode)


def iou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    mode: IoUMode = "linear",
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
    if mode not in IOU_MODES:
        raise ValueError(f"mode must be one of {', '.join(IOU_MODES)}, got {mode!r}")
    return box_loss(
        partial(_iou_loss, mode=mode, eps=eps),
        pred,
        target,
        fused=partial(_fused, mode=mode, eps=eps),
        weight=weight,
        reduction=reduction,
    )


def _iou_loss(pred: Tensor, target: Tensor, mode: IoUMode, eps: float) -> Tensor:
    pairs = Lengths(pred, target, least_side(eps))
    overlap, gradient_alone = iou(pairs), pairs.turning
    if mode == "log":
        return gradient_alone - overlap.clamp(min=eps).log()
    return gradient_alone + 1 - (overlap if mode == "linear" else overlap * overlap)


def _fused(
    pred: Tensor, gradient: Tensor | None, target: Tensor, mode: IoUMode, eps: float
) -> Tensor:
    """`_iou_loss` of boxes (N, 4), as (N,); its gradient is written over `gradient` (N, 4)."""
    pairs = BoxPairs(pred, target, least_side(eps))
    if mode == "log":
        overlap = pairs.iou.clamp(min=eps)
        loss, by_iou = -overlap.log(), -overlap.reciprocal() * (pairs.iou >= eps)
    elif mode == "square":
        loss, by_iou = 1 - pairs.iou * pairs.iou, -2 * pairs.iou
    else:
        loss, by_iou = 1 - pairs.iou, None
    pairs.gradient(gradient, iou=by_iou, turning=True)
    return pairs.rows(loss)


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
        self, *, mode: IoUMode = "linear", eps: Positive = 1e-7, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction)
        self.mode = mode
        self.eps = eps
