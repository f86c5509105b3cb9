"""MPDIoU loss: IoU and the distances of both corners, measured by the image."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from detloss.boxes.checking import check_image_size
from detloss.boxes.lengths import Lengths, squared_length
from detloss.kernels import Reduction
from detloss.kernels.box_pairs import BoxPairs, Penalty, squared_length_
from detloss.registry import REGRESSION, Positive
from detloss.regression.base import BoxLoss, Space
from detloss.regression.family import Composition, family_loss
from detloss.regression.members import member


def mpdiou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    image_size: Sequence[float] | Tensor | None = None,
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
            fractions of the image. A tensor (2,), or (..., 2) of each row's image, is not looked
            into: of an image of no size the loss is not finite. None for 640 x 640.
        eps: Square of the least side of a target, in the unit of the boxes: a shorter side counts
            as that long, so that no gradient exceeds ``10 / sqrt(eps)``. Make it smaller where
            objects are: 1e-7 is 0.4 px of a 1280 px image in fractions.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss >= 0, and below 3 for boxes in the image: 0 for identical boxes without a side below
        sqrt(eps). float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If a box tensor is not floating point.
        ValueError: If the shapes differ, a last axis is not 4 or `image_size` is not two positive
            numbers, or a tensor of them in another shape.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is at least 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`. Copies that measure boxes
        in cells of a grid by an image in pixels, or divide by W H, make the term another one.

    Example:
        >>> import torch
        >>> box, target = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[3.0, 0, 4, 1]])
        >>> mpdiou_loss(box, target, image_size=(6.0, 6.0))  # two corners by 3: 18 / 72
        tensor([1.2500])

    Reference:
        Ma and Xu, "MPDIoU: A Loss for Efficient and Accurate Bounding Box Regression", 2023,
        arXiv:2307.07662.
    """
    if not isinstance(image_size, Tensor):
        squared_diagonal(image_size)
    composition = Composition(MPDIOU.having(image_size=image_size), eps)
    return family_loss(composition, pred, target, weight=weight, reduction=reduction)


def squared_diagonal(image_size: Sequence[float] | Tensor | None) -> Tensor | float:
    """``W^2 + H^2`` of two numbers, or of lengths (2, ...).

    Raises:
        ValueError: If a number is not above 0, or they are not two.
    """
    if isinstance(image_size, Tensor):
        return squared_length(image_size)
    height, width = check_image_size((640.0, 640.0) if image_size is None else image_size)
    return height**2 + width**2


def _penalties(
    pairs: Lengths, image_size: Sequence[float] | Tensor | None = None
) -> tuple[Tensor, ...]:
    first, last = pairs.overhang
    return ((squared_length(first) + squared_length(last)) / squared_diagonal(image_size),)


def _fused(
    pairs: BoxPairs, image_size: Sequence[float] | Tensor | None = None
) -> tuple[Penalty, ...]:
    diagonal = squared_diagonal(image_size)
    first, last = pairs.overhang.unbind()
    value = squared_length_(first).add_(squared_length_(last)).div_(diagonal)
    return (Penalty(value, overhang=pairs.overhang * (2 / diagonal)),)


MPDIOU = member("mpdiou", _penalties, _fused)


@REGRESSION.register("mpdiou")
class MPDIoULoss(BoxLoss):
    """`mpdiou_loss` as a module.

    Args:
        image_size: See `mpdiou_loss`; a list. Where it is None, a criterion hands on the size of
            each row's image, as its call or targets say it; one that nobody says is an error there.
        eps: See `mpdiou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> box, target = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[3.0, 0, 4, 1]])
        >>> MPDIoULoss(image_size=[6.0, 6.0])(box, target)
        tensor(1.2500)
    """

    function = staticmethod(mpdiou_loss)
    space: ClassVar[Space] = "boxes"

    def __init__(
        self,
        *,
        image_size: Sequence[Positive] | None = None,
        eps: Positive = 1e-7,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        squared_diagonal(image_size)
        self.image_size = image_size
        self.eps = eps

    @property
    def reads_image_size(self) -> bool:
        """See `BoxLoss.reads_image_size`: where no option says it."""
        return self.image_size is None

    def in_images(self, image_size: Tensor) -> dict[str, Any]:
        """See `BoxLoss.in_images`."""
        return {"image_size": image_size}
