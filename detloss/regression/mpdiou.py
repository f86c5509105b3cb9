"""MPDIoU loss: IoU and the distances of both corners, measured by the image."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from detloss.boxes.lengths import Lengths, squared_length
from detloss.kernels import Reduction
from detloss.kernels.box_pairs import BoxPairs, Penalty, squared_length_
from detloss.registry import REGRESSION, Positive
from detloss.regression.base import BoxLoss, Space
from detloss.regression.family import Composition, family_loss, member


def mpdiou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    image_size: Sequence[float] = (640.0, 640.0),
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """MPDIoU loss of each pair of boxes, ``1 - IoU + (d1^2 + d2^2) / (W^2 + H^2)``.

    d1 and d2 are the distances of the two first and of the two last corners, W and H the sides of
    the image. It is good where one plain term should do for position and size. In a large image the
    term is small, and the loss near ``1 - IoU``: boxes that do not overlap are hardly pulled.

    Args:
        pred: Predicted boxes (..., 4) as (x1, y1, x2, y2), floating point.
        target: Ground-truth boxes of the same shape, in the unit of `pred`: pixels or fractions
            of the image. The loss changes with the unit as `image_size` does.
        image_size: Height and width of the image, both > 0, in the unit of the boxes: (1, 1) for
            fractions of the image.
        eps: Square of the least side of a target, in the unit of the boxes: a shorter side counts
            as that long, so that no gradient exceeds ``10 / sqrt(eps)``. Make it smaller where
            objects are: 1e-7 is 0.4 px of a 1280 px image in fractions.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss >= 0, and below 3 for boxes in the image: 0 for identical boxes without a side below
        sqrt(eps). float16 and bfloat16
        are computed in float32.

    Raises:
        TypeError: If a box tensor is not floating point.
        ValueError: If the shapes differ a last axis is not 4 or `image_size` is not two positive
            numbers.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is at least 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`.

    Example:
        >>> import torch
        >>> box, target = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[3.0, 0, 4, 1]])
        >>> mpdiou_loss(box, target, image_size=(6.0, 6.0))  # two corners by 3: 18 / 72
        tensor([1.2500])

    Reference:
        Ma and Xu, "MPDIoU: A Loss for Efficient and Accurate Bounding Box Regression", 2023,
        arXiv:2307.07662.
    """
    squared_diagonal(image_size)
    composition = Composition(MPDIOU.having(image_size=image_size), eps)
    return family_loss(composition, pred, target, weight=weight, reduction=reduction)


def squared_diagonal(image_size: Sequence[float]) -> float:
    """``W^2 + H^2``; ValueError unless the size is two positive numbers."""
    if len(image_size) != 2 or not all(side > 0 for side in image_size):
        raise ValueError(f"image_size must be two positive numbers, got {image_size}")
    return float(image_size[0] ** 2 + image_size[1] ** 2)


def _penalties(pairs: Lengths, image_size: Sequence[float] = (640.0, 640.0)) -> tuple[Tensor, ...]:
    first, last = pairs.overhang
    return ((squared_length(first) + squared_length(last)) / squared_diagonal(image_size),)


def _fused(pairs: BoxPairs, image_size: Sequence[float] = (640.0, 640.0)) -> tuple[Penalty, ...]:
    diagonal = squared_diagonal(image_size)
    first, last = pairs.overhang.unbind()
    value = squared_length_(first).add_(squared_length_(last)).div_(diagonal)
    return (Penalty(value, overhang=pairs.overhang * (2 / diagonal)),)


MPDIOU = member("mpdiou", _penalties, _fused)


@REGRESSION.register("mpdiou")
class MPDIoULoss(BoxLoss):
    """`mpdiou_loss` as a module.

    Args:
        image_size: See `mpdiou_loss`.
        eps: See `mpdiou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> loss = MPDIoULoss(image_size=[6.0, 6.0])
        >>> loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[3.0, 0, 4, 1]]))
        tensor(1.2500)
    """

    function = staticmethod(mpdiou_loss)
    space: ClassVar[Space] = "boxes"

    def __init__(
        self,
        *,
        image_size: Sequence[Positive] = (640.0, 640.0),
        eps: Positive = 1e-7,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        squared_diagonal(image_size)
        self.image_size = image_size
        self.eps = eps
