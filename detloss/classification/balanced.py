"""Alpha-balanced cross-entropy: sigmoid cross-entropy that weighs "yes" against "no"."""

from collections.abc import Sequence

from torch import Tensor

from detloss.classification.base import ClassificationLoss
from detloss.kernels import (
    Reduction,
    binary_loss,
    softplus,
    softplus_backward,
    softplus_with_derivative,
)
from detloss.registry import CLASSIFICATION, Fraction, PerClass


def balanced_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    quality: Tensor | None = None,
    alpha: float | Sequence[float] | Tensor | None = 0.75,
    label_smoothing: float = 0.0,
    class_weight: Sequence[float] | Tensor | None = None,
    ignore_index: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Sigmoid cross-entropy with weight alpha on positives and 1 - alpha on negatives.

    ``L = -alpha y ln p - (1 - alpha) (1 - y) ln(1 - p)``, ``p = sigmoid(x)``. Gradient
    ``(1 - alpha) (1 - y) p - alpha y (1 - p)``.

    Args:
        logits: Scores (..., C), floating point.
        target: Class indices (...,): 0..C-1 says yes to that class, C (``num_classes``) is
            background, yes to none. Or the label y of each class (..., C), in [0, 1].
        quality: (...,) in [0, 1], beside class indices: the label that the row's class gets instead
            of 1, such as the IoU of its box. It carries no gradient, and is not read in a row
            without a class.
        alpha: Weight of the positive term in [0, 1], 1 - alpha of the negative: a float, (C,)
            values, one per class, or None for 1 and 1. The default is the best of table 1a.
        label_smoothing: e in [0, 1]: a label y becomes ``y (1 - e) + e / 2``.
        class_weight: (C,) factor of each class; a mean still divides by the plain count.
        ignore_index: The class index of rows to leave out: loss and gradient exactly 0.
        weight: (...,) or (..., C) factors; 0 silences the gradient exactly.
        reduction: "none" -> (..., C), "sum", "image" -> (B,) sums over all axes but the first, or
            "mean" over the elements of rows not ignored.

    Returns:
        Loss >= 0. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If the logits are not floating point, or class indices not integer.
        ValueError: If shapes do not fit or an option is out of range.

    Note:
        On a CPU a class index outside 0..C other than `ignore_index` is an error. Compiled or on a
        GPU it is not looked at, since that would stall the GPU, and counts as background.

    Example:
        >>> import torch
        >>> balanced_cross_entropy(torch.zeros(1, 2), torch.tensor([1]), alpha=0.75)
        tensor([[0.1733, 0.5199]])

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002,
        equation 3.
    """
    return binary_loss(
        softplus,
        logits,
        target,
        quality=quality,
        with_derivative=softplus_with_derivative,
        backward=softplus_backward,
        label_smoothing=label_smoothing,
        alpha=alpha,
        class_weight=class_weight,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


@CLASSIFICATION.register("balanced_cross_entropy")
class BalancedCrossEntropy(ClassificationLoss):
    """`balanced_cross_entropy` as a module.

    Args:
        alpha: See `balanced_cross_entropy`.
        label_smoothing: See `balanced_cross_entropy`.
        class_weight: See `balanced_cross_entropy`.
        ignore_index: See `balanced_cross_entropy`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> BalancedCrossEntropy()(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
        tensor(0.1342)
    """

    function = staticmethod(balanced_cross_entropy)
    alpha: float | Tensor | None

    def __init__(
        self,
        *,
        alpha: Fraction | PerClass | None = 0.75,
        label_smoothing: Fraction = 0.0,
        class_weight: PerClass | None = None,
        ignore_index: int = -1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_weight, ignore_index, reduction)
        self.label_smoothing = label_smoothing
        self.keep_per_class("alpha", alpha, highest=1)
