"""NWD loss: boxes as Gaussians, and how far one is from the other."""

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from detloss.boxes.lengths import Lengths, least_side
from detloss.boxes.overlaps import OVERLAPS
from detloss.kernels import Reduction, box_loss
from detloss.registry import REGRESSION, Positive
from detloss.regression.base import BoxLoss, Space


def nwd_loss(
    pred: Tensor,
    target: Tensor,
    *,
    constant: float = 12.8,
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Normalized Wasserstein distance loss of each pair of boxes, ``1 - exp(-W / C)``.

    ``W^2 = dx^2 + dy^2 + ((w - wt)^2 + (h - ht)^2) / 4`` is the distance of the two Gaussians with
    the boxes' centres and half of their sides as standard deviations: dx and dy from one centre to
    the other, C the constant.

    It is good for tiny objects: a shift by a pixel costs the same whatever the size of the box,
    where the IoU of a tiny one would be gone. The price: it changes with the unit; some C away it
    has hardly a gradient; and it costs autograd, about twice as many launches as a GIoU.

    Args:
        pred: Predicted boxes (..., 4) as (x1, y1, x2, y2), floating point.
        target: Ground-truth boxes of the same shape, in the unit of `pred`: pixels or fractions
            of the image. It has to be that of `constant`.
        constant: C > 0, in the unit of the boxes: the mean size of objects. 12.8 px is that of
            AI-TOD.
        eps: Square of the least side of a target, in the unit of the boxes: a shorter side counts
            as that long, so that no gradient exceeds ``10 / sqrt(eps)``. Make it smaller where
            objects are: 1e-7 is 0.4 px of a 1280 px image in fractions.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss in [0, 1]: 0 for identical boxes without a side below sqrt(eps), towards 1 far apart.
        float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If a box tensor is not floating point.
        ValueError: If the shapes differ or a last axis is not 4.

    Note:
        An inverted box (x2 < x1) is infinitely far: its loss is 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`. The authors' code adds
        1e-7 under the root, where it has no gradient at 0; other losses of W in it, such as W
        itself, are not the paper's.

    Example:
        >>> import torch
        >>> nwd_loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]), constant=1.0)
        tensor([0.6321])

    Reference:
        Wang et al., "A Normalized Gaussian Wasserstein Distance for Tiny Object Detection", 2021,
        arXiv:2110.13389.
    """
    formula = partial(_nwd_loss, constant=constant, eps=eps)
    return box_loss(formula, pred, target, weight=weight, reduction=reduction)


def nwd(pairs: Lengths, constant: float = 12.8) -> Tensor:
    """``exp(-W / C)``, in [0, 1]; 0 where a box is inverted. At 0 the distance has no gradient."""
    (dx, dy), (w, h) = pairs.offset.unbind(), (pairs.sides - pairs.target_sides).unbind()
    squared = dx * dx + dy * dy + (w * w + h * h) / 4
    is_0 = squared == 0
    distance = torch.where(is_0, 0, torch.where(is_0, 1, squared).sqrt())
    return torch.where(pairs.any_inverted, 0, torch.exp(-distance / constant))


def _nwd_loss(pred: Tensor, target: Tensor, constant: float, eps: float) -> Tensor:
    pairs = Lengths(pred, target, least_side(eps))
    return 1 - nwd(pairs, constant) + pairs.turning


OVERLAPS["nwd"] = nwd


@REGRESSION.register("nwd")
class NWDLoss(BoxLoss):
    """`nwd_loss` as a module.

    Args:
        constant: See `nwd_loss`.
        eps: See `nwd_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> NWDLoss()(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor(0.0752)
    """

    function = staticmethod(nwd_loss)
    space: ClassVar[Space] = "boxes"

    def __init__(
        self, *, constant: Positive = 12.8, eps: Positive = 1e-7, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction)
        self.constant = constant
        self.eps = eps
