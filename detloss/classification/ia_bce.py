"""IoU-aware cross-entropy: the label of a positive is a mean of its score and of its box's IoU."""

import math
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from detloss.classification.base import ClassificationLoss
from detloss.kernels import Reduction, binary_loss, softplus
from detloss.kernels.elementary import (
    modulated_softplus,
    modulated_softplus_with_derivative,
    zero_or_product,
)
from detloss.options import check_fraction, check_non_negative
from detloss.registry import CLASSIFICATION, Fraction, NonNegative, PerClass

LEAST_LABEL = 0.01
"""Of a positive, as all implementations have it."""


def ia_bce_loss(
    logits: Tensor,
    target: Tensor,
    *,
    quality: Tensor | None = None,
    alpha: float = 0.25,
    gamma: float = 2.0,
    class_weight: Sequence[float] | Tensor | None = None,
    ignore_index: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """IoU-aware binary cross-entropy (IA-BCE) of an independent answer for each class.

    ``L = -t ln p - (1 - t) ln(1 - p)`` of the row's class with quality q, the label ``t =
    max(p^alpha q^(1 - alpha), 0.01)`` a constant, gradient ``p - t``; and ``L = -p^gamma ln(1 -
    p)`` of every other class, whose power has a gradient; ``p = sigmoid(x)``.

    It is for detectors that match few predictions to an object, the DETRs: the score follows the
    IoU, but from where it is, so that a poor box early in training still teaches its class. No
    factor lifts the positives or lowers the rest, so that the sum is larger than that of focal
    loss; with it goes a term weight of 1, not 2.

    Args:
        logits: Scores (..., C), floating point.
        target: Class indices (...,): 0..C-1 says yes to that class, C (``num_classes``) is
            background, yes to none. Or the label y of each class (..., C), in [0, 1].
        quality: (...,) in [0, 1], beside class indices: the label that the row's class gets instead
            of 1, such as the IoU of its box. It carries no gradient, and is not read in a row
            without a class.
        alpha: The paper's alpha. The share of the score in the label, in [0, 1]: at 0 it is the
            quality.
        gamma: How much less an example counts the nearer its answer is to the truth. It is at least
            0. Here only a "no" has it.
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
        A positive is one by its class index, also where its quality is 0: its label is 0.01. In a
        dense target a 0 is background. Where several predictions share an object, Align-DETR also
        multiplies t by ``exp(-rank / 1.5)`` of each among them, which is not here. On a CPU a class
        index outside 0..C other than `ignore_index` is an error. Compiled or on a GPU it is not
        looked at, since that would stall the GPU, and counts as background.

    Example:
        At logit 0 every positive costs ln 2, whatever its label, a background ``0.25 ln 2``.

        >>> import torch
        >>> ia_bce_loss(torch.zeros(1, 2), torch.tensor([1]), quality=torch.tensor([0.5]))
        tensor([[0.1733, 0.6931]])

    Reference:
        Cai et al., "Align-DETR: Improving DETR with Simple IoU-aware BCE loss", 2023,
        arXiv:2304.07527v1, equations 4 and 5.
    """
    check_fraction("alpha", alpha)
    check_non_negative("gamma", gamma)
    return binary_loss(
        partial(modulated_softplus, gamma=gamma),
        logits,
        target,
        quality=quality,
        with_derivative=partial(modulated_softplus_with_derivative, gamma=gamma),
        of_label=partial(_of_positive, alpha=alpha),
        positives_alone=True,
        class_weight=class_weight,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def _of_positive(x: Tensor, quality: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """The cross-entropy of the label t, and its gradient ``p - t``.

    Both keep their digits where p and t are near 1, as ``1 - t`` is computed from ``ln t``.
    """
    of_yes, of_no = softplus(-x), softplus(x)
    log_t = -alpha * of_yes
    if alpha < 1:  # 0 ln 0 would be a nan
        log_t = log_t + (1 - alpha) * quality.log()
    log_t = log_t.detach().clamp(min=math.log(LEAST_LABEL))
    t, rest = log_t.exp(), -log_t.expm1()
    gradient = torch.where(x > 0, rest - (-x).sigmoid(), x.sigmoid() - t)
    return t * of_yes + zero_or_product(rest, of_no), gradient


@CLASSIFICATION.register("ia_bce")
class IABCELoss(ClassificationLoss):
    """`ia_bce_loss` as a module.

    Args:
        alpha: See `ia_bce_loss`.
        gamma: See `ia_bce_loss`.
        class_weight: See `ia_bce_loss`.
        ignore_index: See `ia_bce_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> IABCELoss()(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
        tensor(0.1813)
    """

    function = staticmethod(ia_bce_loss)
    default_label: ClassVar[str] = "iou"

    def __init__(
        self,
        *,
        alpha: Fraction = 0.25,
        gamma: NonNegative = 2.0,
        class_weight: PerClass | None = None,
        ignore_index: int = -1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_weight, ignore_index, reduction)
        self.alpha = alpha
        self.gamma = gamma
