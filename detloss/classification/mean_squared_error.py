"""Mean squared error on probabilities."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detloss.classification.base import ClassificationLoss
from detloss.kernels import Reduction, binary_loss
from detloss.kernels.elementary import label_minus_sigmoid
from detloss.registry import CLASSIFICATION, Fraction, PerClass


def mean_squared_error(
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
    """Squared difference of the probability of each class and its label.

    ``L = (p - y)^2``, ``p = sigmoid(x)``. Gradient ``2 (p - y) p (1 - p)``: it vanishes where the
    network is surely wrong, unlike that of cross-entropy.

    Args:
        logits: Scores (..., C), floating point. The sigmoid is taken here.
        target: Class indices (...,): 0..C-1 says yes to that class, C (``num_classes``) is
            background, yes to none. Or the label y of each class (..., C), in [0, 1].
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
        Loss in [0, 1]. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If the logits are not floating point, or class indices not integer.
        ValueError: If shapes do not fit or an option is out of range.

    Note:
        On a CPU a class index outside 0..C other than `ignore_index` is an error. Compiled or on a
        GPU it is not looked at, since that would stall the GPU, and counts as background.

    Example:
        >>> import torch
        >>> mean_squared_error(torch.zeros(1, 2), torch.tensor([[1.0, 0.7]]))
        tensor([[0.2500, 0.0400]])

    Reference:
        Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather
        Review 78, 1950.
    """
    return binary_loss(
        _negative_squared_error,
        logits,
        target,
        quality=quality,
        with_derivative=_with_derivative,
        of_label=_of_label,
        dense=_squared_error,
        label_smoothing=label_smoothing,
        class_weight=class_weight,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def _negative_squared_error(z: Tensor) -> Tensor:
    return z.sigmoid().square()


def _with_derivative(z: Tensor, derivative: Tensor | None) -> Tensor:
    p = torch.sigmoid(z, out=derivative)
    loss = torch.mul(p, p, out=z)
    if derivative is not None:
        torch.sub(loss, derivative.mul_(loss), out=derivative).mul_(2)
    return loss


def _squared_error(x: Tensor, label: Tensor) -> Tensor:
    return (x.sigmoid() - label).square()


def _of_label(x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """``(y - p)^2`` and its gradient ``-2 (y - p) p (1 - p)``."""
    distance, by_sigmoid = label_minus_sigmoid(x, label)
    return distance.square(), -2 * distance * by_sigmoid


@CLASSIFICATION.register("mean_squared_error")
class MeanSquaredError(ClassificationLoss):
    """`mean_squared_error` as a module.

    Args:
        label_smoothing: See `mean_squared_error`.
        class_weight: See `mean_squared_error`.
        ignore_index: See `mean_squared_error`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> MeanSquaredError()(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
        tensor(0.1321)
    """

    function = staticmethod(mean_squared_error)

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
