"""Sigmoid (binary, multi-label) cross-entropy."""

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


def sigmoid_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    quality: Tensor | None = None,
    label_smoothing: float = 0.0,
    class_weight: Sequence[float] | Tensor | None = None,
    ignore_index: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Cross-entropy of an independent yes or no for each class.

    ``L = -y ln p - (1 - y) ln(1 - p)``, ``p = sigmoid(x)``, computed as ``ln(1 + exp(+-x))``, exact
    for any finite logit. Gradient ``p - y``.

    Args:
        logits: Scores (..., C), floating point.
        target: Class indices (...,): 0..C-1 says yes to that class, C (``num_classes``) is
            background, yes to none. Or the label y of each class (..., C), in [0, 1].
            Multi-hot labels may be of any dtype.
        quality: (...,) in [0, 1], beside class indices: the label that the row's class gets instead
            of 1, such as the IoU of its box. It carries no gradient, and is not read in a row
            without a class.
        label_smoothing: e in [0, 1]: a label y becomes ``y (1 - e) + e / 2``.
        class_weight: (C,) factor of each class; a mean still divides by the plain count.
        ignore_index: The class index of rows to leave out: loss and gradient exactly 0.
        weight: (...,) or (..., C) factors; 0 silences the gradient exactly.
        reduction: "none" -> (..., C), "sum", "image" -> (B,) sums over all axes but the first, or
            "mean" over the elements of rows not ignored.

    Returns:
        Loss >= 0; ln 2 at logit 0. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If the logits are not floating point, or class indices not integer.
        ValueError: If shapes do not fit or an option is out of range.

    Note:
        On a CPU a class index outside 0..C other than `ignore_index` is an error. Compiled or on a
        GPU it is not looked at, since that would stall the GPU, and counts as background.

    Example:
        >>> import torch
        >>> sigmoid_cross_entropy(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
        tensor([[0.6931, 0.1269]])

    Reference:
        Bishop, "Pattern Recognition and Machine Learning", 2006, equation 4.90.
    """
    return binary_loss(
        softplus,
        logits,
        target,
        quality=quality,
        with_derivative=softplus_with_derivative,
        backward=softplus_backward,
        label_smoothing=label_smoothing,
        class_weight=class_weight,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


@CLASSIFICATION.register("sigmoid_cross_entropy")
class SigmoidCrossEntropy(ClassificationLoss):
    """`sigmoid_cross_entropy` as a module.

    Args:
        label_smoothing: See `sigmoid_cross_entropy`.
        class_weight: See `sigmoid_cross_entropy`.
        ignore_index: See `sigmoid_cross_entropy`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> SigmoidCrossEntropy()(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
        tensor(0.4100)
    """

    function = staticmethod(sigmoid_cross_entropy)

    def __init__(
        self,
        *,
        label_smoothing: Fraction = 0.0,
        class_weight: PerClass | None = None,
        ignore_index: int = -1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_weight, ignore_index, reduction)
        self.label_smoothing = label_smoothing
