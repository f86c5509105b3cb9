"""Powerful-IoU v2 loss: anchors of middling quality count most."""

from functools import partial
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from detloss.boxes.lengths import Lengths
from detloss.kernels import Reduction
from detloss.kernels.box_pairs import BoxPairs
from detloss.options import check_choice
from detloss.registry import REGRESSION, Positive
from detloss.regression.base import BoxLoss, Space
from detloss.regression.family import Composition, family_loss
from detloss.regression.piou import PIOU, mean_distance

Convention = Literal["paper", "authors"]
CONVENTIONS = get_args(Convention)


def piou_v2_loss(
    pred: Tensor,
    target: Tensor,
    *,
    weight_factor: float = 1.3,
    convention: Convention = "paper",
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Powerful-IoU v2 loss of each pair of boxes, ``u(k q) PIoU loss``.

    ``q = exp(-P)``, P the mean distance of the edges of `piou_loss`; ``u(x) = 3 x exp(-x^2)``; k is
    `weight_factor`. u is largest, 1.29, at ``x = 0.71``: poor boxes count little and the best a
    little less. The factor is constant for the gradient.

    It is good where many matched boxes are too poor to learn from. Those learn hardly anything; and
    it costs autograd, about three times as many launches as a GIoU.

    Args:
        pred: Predicted boxes (..., 4) as (x1, y1, x2, y2), floating point.
        target: Ground-truth boxes of the same shape, in the unit of `pred`: pixels or fractions
            of the image. The loss does not change with the unit.
        weight_factor: k > 0; at 1.3 a box of P 0.61 counts most.
        convention: What it follows where implementations differ. "paper": the factor is constant,
            of which the paper says nothing. "authors": it has a gradient, as in the authors' code.
            The values are the same, but that loss falls as a poor box leaves its target: from a P
            of about 1 on it is pushed away.
        eps: Square of the least side of a target, in the unit of the boxes: a shorter side counts
            as that long, so that no gradient exceeds ``10 / sqrt(eps)``. Make it smaller where
            objects are: 1e-7 is 0.4 px of a 1280 px image in fractions.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss in [0, 2.58]: 0 for identical boxes without a side below sqrt(eps). It does not grow
        with the distance, nor is it symmetric. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If a box tensor is not floating point.
        ValueError: If the shapes differ, a last axis is not 4 or the convention is unknown.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is at least 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`.

    Example:
        >>> import torch
        >>> piou_v2_loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor([0.7925])

    Reference:
        Liu et al., "Powerful-IoU: More Straightforward and Faster Bounding Box Regression Loss with
        a Nonmonotonic Focusing Mechanism", Neural Networks 2024, section 3.3.
    """
    check_choice("convention", convention, CONVENTIONS)
    focus = partial(_focus, weight_factor=weight_factor)
    if convention == "paper":
        composition = Composition(PIOU, eps, gain=focus)
    else:
        composition = Composition(PIOU, eps, factor=focus)
    return family_loss(composition, pred, target, weight=weight, reduction=reduction)


def _focus(pairs: Lengths | BoxPairs, weight_factor: float) -> Tensor:
    """u, of how good a box is."""
    assert isinstance(pairs, Lengths)
    x = weight_factor * torch.exp(-mean_distance(pairs))
    return 3 * x * torch.exp(-x * x)


@REGRESSION.register("piou_v2")
class PIoUv2Loss(BoxLoss):
    """`piou_v2_loss` as a module.

    Args:
        weight_factor: See `piou_v2_loss`.
        convention: See `piou_v2_loss`.
        eps: See `piou_v2_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> PIoUv2Loss()(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor(0.7925)
    """

    function = staticmethod(piou_v2_loss)
    space: ClassVar[Space] = "boxes"

    def __init__(
        self,
        *,
        weight_factor: Positive = 1.3,
        convention: Convention = "paper",
        eps: Positive = 1e-7,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        self.weight_factor = weight_factor
        self.convention = convention
        self.eps = eps
