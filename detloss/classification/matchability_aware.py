"""Matchability-aware loss: a poor match costs much, unless the network is not sure of it."""

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
from detloss.options import check_non_negative
from detloss.registry import CLASSIFICATION, NonNegative, PerClass


def matchability_aware_loss(
    logits: Tensor,
    target: Tensor,
    *,
    quality: Tensor | None = None,
    gamma: float = 1.5,
    detach: bool = True,
    class_weight: Sequence[float] | Tensor | None = None,
    ignore_index: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Matchability-aware loss (MAL) of an independent answer for each class.

    ``L = -q^gamma ln p - (1 - q^gamma) ln(1 - p)`` of the row's class with quality q, gradient ``p
    - q^gamma``, and ``L = -p^gamma ln(1 - p)`` of every other class, ``p = sigmoid(x)``.

    It is for detectors that match one prediction to each object and rank by the class score alone.
    Where such a match is poor, `varifocal_loss` costs next to nothing however sure the network is
    of it; here that is the costliest positive. It is least at ``p = q^gamma``, but not 0.

    Args:
        logits: Scores (..., C), floating point.
        target: Class indices (...,): 0..C-1 says yes to that class, C (``num_classes``) is
            background, yes to none. Or the label y of each class (..., C), in [0, 1].
        quality: (...,) in [0, 1], beside class indices: the label that the row's class gets instead
            of 1, such as the IoU of its box. It carries no gradient, and is not read in a row
            without a class.
        gamma: How much less an example counts the nearer its answer is to the truth. It is at least
            0. For a positive it is the power of its quality.
        detach: Whether the power carries no gradient. The value is the same. The authors' code does
            not differentiate it, and the paper does not say.
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
        ValueError: If shapes do not fit, a quality stands beside a dense target, or gamma is
            negative.

    Note:
        A positive is one by its class index, also where its quality is 0: then it costs ``-ln(1 -
        p)``, without the power of a background. In a dense target a 0 is background. On a CPU a
        class index outside 0..C other than `ignore_index` is an error. Compiled or on a GPU it is
        not looked at, since that would stall the GPU, and counts as background.

    Example:
        At logit 0 every positive costs ln 2, whatever its quality, a background ``2^-1.5 ln 2``.

        >>> import torch
        >>> quality = torch.tensor([0.5])
        >>> matchability_aware_loss(torch.zeros(1, 2), torch.tensor([1]), quality=quality)
        tensor([[0.2451, 0.6931]])

    Reference:
        Huang et al., "DEIM: DETR with Improved Matching for Fast Convergence", CVPR 2025,
        arXiv:2412.04234.
    """
    check_non_negative("gamma", gamma)
    return binary_loss(
        partial(modulated_softplus, gamma=gamma, detach=detach),
        logits,
        target,
        quality=quality,
        with_derivative=partial(modulated_softplus_with_derivative, gamma=gamma, detach=detach),
        of_label=partial(_of_positive, gamma=gamma),
        positives_alone=True,
        class_weight=class_weight,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def _of_positive(x: Tensor, quality: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """The cross-entropy of the label ``q^gamma``, and its gradient ``p - q^gamma``."""
    label = quality.pow(gamma)
    return cross_entropy(x, label), -label_minus_sigmoid(x, label)[0]


@CLASSIFICATION.register("matchability_aware")
class MatchabilityAwareLoss(ClassificationLoss):
    """`matchability_aware_loss` as a module.

    Args:
        gamma: See `matchability_aware_loss`.
        detach: See `matchability_aware_loss`.
        class_weight: See `matchability_aware_loss`.
        ignore_index: See `matchability_aware_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> MatchabilityAwareLoss()(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
        tensor(0.1860)
    """

    function = staticmethod(matchability_aware_loss)
    default_label: ClassVar[str] = "iou"

    def __init__(
        self,
        *,
        gamma: NonNegative = 1.5,
        detach: bool = True,
        class_weight: PerClass | None = None,
        ignore_index: int = -1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_weight, ignore_index, reduction)
        self.gamma = gamma
        self.detach = detach
