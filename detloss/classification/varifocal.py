"""Varifocal loss: positives count as much as their box is good, negatives by focal loss."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from torch import Tensor

from detloss.classification.base import ClassificationLoss
from detloss.kernels import Reduction, binary_loss
from detloss.kernels.elementary import (
    cross_entropy,
    label_minus_sigmoid,
    modulated_softplus,
    modulated_softplus_with_derivative,
)
from detloss.options import check_fraction, check_non_negative
from detloss.registry import CLASSIFICATION, Fraction, NonNegative, PerClass


def varifocal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    quality: Tensor | None = None,
    alpha: float = 0.75,
    gamma: float = 2.0,
    detach: bool = False,
    class_weight: Sequence[float] | Tensor | None = None,
    ignore_index: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Varifocal loss (VFL) of an independent answer for each class.

    ``L = q (-q ln p - (1 - q) ln(1 - p))`` of the row's class with quality q, and ``L = -alpha
    p^gamma ln(1 - p)`` of every other class, ``p = sigmoid(x)``. It is for detectors that rank
    boxes by their class score alone: positives with good boxes, which a ranking keeps, count most.

    Args:
        logits: Scores (..., C), floating point.
        target: Class indices (...,): 0..C-1 says yes to that class, C (``num_classes``) is
            background, yes to none. Or the label y of each class (..., C), in [0, 1].
        quality: (...,) in [0, 1], beside class indices: the label that the row's class gets instead
            of 1, such as the IoU of its box. It carries no gradient, and is not read in a row
            without a class.
        alpha: The paper's alpha. Factor of the other classes, in [0, 1]; unlike that of focal loss
            it leaves positives alone.
        gamma: How much less an example counts the nearer its answer is to the truth. It is at least
            0. Here only a "no" has it.
        detach: Whether the power carries no gradient. The value is the same. The paper's code
            differentiates it; RT-DETR, D-FINE and DEIM do not.
        class_weight: (C,) factor of each class; a mean still divides by the plain count.
        ignore_index: The class index of rows to leave out: loss and gradient exactly 0.
        weight: (...,) or (..., C) factors; 0 silences the gradient exactly.
        reduction: "none" -> (..., C), "sum", "image" -> (B,) sums over all axes but the first, or
            "mean" over the elements of rows not ignored.

    Returns:
        Loss >= 0, finite with a finite gradient for every finite logit. float16 and bfloat16 are
        computed in float32.

    Raises:
        TypeError: If the logits are not floating point, or class indices not integer.
        ValueError: If shapes do not fit, a quality stands beside a dense target, alpha is outside
            [0, 1] or gamma is negative.

    Note:
        A positive is one by its class index, also where its quality is 0: then it costs nothing
        and learns nothing. In a dense target a 0 is background. On a CPU a class index
        outside 0..C other than `ignore_index` is an error. Compiled or on a GPU it is not looked
        at, since that would stall the GPU, and counts as background.

    Example:
        At logit 0 a quality of 1/2 costs ``0.5 ln 2``, a background ``0.75 * 0.25 ln 2``.

        >>> import torch
        >>> varifocal_loss(torch.zeros(1, 2), torch.tensor([1]), quality=torch.tensor([0.5]))
        tensor([[0.1300, 0.3466]])

    Reference:
        Zhang et al., "VarifocalNet", CVPR 2021, arXiv:2008.13367, equation 2.
    """
    check_fraction("alpha", alpha)
    check_non_negative("gamma", gamma)
    return binary_loss(
        partial(modulated_softplus, gamma=gamma, detach=detach),
        logits,
        target,
        quality=quality,
        with_derivative=partial(modulated_softplus_with_derivative, gamma=gamma, detach=detach),
        of_label=_of_positive,
        positives_alone=True,
        no_weight=alpha,
        class_weight=class_weight,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def _of_positive(x: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
    """The cross-entropy of a label q times q, and its gradient ``q (p - q)``."""
    return quality * cross_entropy(x, quality), -quality * label_minus_sigmoid(x, quality)[0]


@CLASSIFICATION.register("varifocal")
class VarifocalLoss(ClassificationLoss):
    """`varifocal_loss` as a module.

    Args:
        alpha: See `varifocal_loss`.
        gamma: See `varifocal_loss`.
        detach: See `varifocal_loss`.
        class_weight: See `varifocal_loss`.
        ignore_index: See `varifocal_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> VarifocalLoss()(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
        tensor(0.1284)
    """

    function = staticmethod(varifocal_loss)
    default_label: ClassVar[str] = "iou"

    def __init__(
        self,
        *,
        alpha: Fraction = 0.75,
        gamma: NonNegative = 2.0,
        detach: bool = False,
        class_weight: PerClass | None = None,
        ignore_index: int = -1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_weight, ignore_index, reduction)
        self.alpha = alpha
        self.gamma = gamma
        self.detach = detach
