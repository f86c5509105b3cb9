"""Hinge loss: satisfied once the right answer leads by a margin of 1."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detloss.classification.base import ClassificationLoss
from detloss.kernels import Reduction, binary_loss, dense_target, is_index_target
from detloss.registry import CLASSIFICATION, PerClass


def hinge_loss(
    logits: Tensor,
    target: Tensor,
    *,
    quality: Tensor | None = None,
    class_weight: Sequence[float] | Tensor | None = None,
    ignore_index: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Hinge loss of a yes (+1) or no (-1) for each class.

    ``L = max(0, 1 - s x)``, s the label. Gradient ``-s`` while ``s x < 1``, else 0.

    Args:
        logits: Scores (..., C), floating point. They need no bound.
        target: Class indices (...,): 0..C-1 says yes to that class, C (``num_classes``) is
            background, yes to none. Or labels (..., C): +1 for yes, -1 for no, or
            between, which weighs the two answers; booleans too.
        quality: (...,) in [0, 1], beside class indices: the label that the row's class gets instead
            of 1, such as the IoU of its box. It carries no gradient, and is not read in a row
            without a class.
        class_weight: (C,) factor of each class; a mean still divides by the plain count.
        ignore_index: The class index of rows to leave out: loss and gradient exactly 0. It has
            no meaning for dense labels.
        weight: (...,) or (..., C) factors; 0 silences the gradient exactly.
        reduction: "none" -> (..., C), "sum", "image" -> (B,) sums over all axes but the first, or
            "mean" over the elements of rows not ignored.

    Returns:
        Loss >= 0. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If the logits are not floating point, or class indices not integer.
        ValueError: If shapes do not fit or an option is out of range.

    Note:
        A dense label is not looked at: 0 means undecided, it is not a "no". A quality q is the
        share of the label +1, as the dense label ``2 q - 1`` says it. On a CPU a class index
        outside 0..C other than `ignore_index` is an error. Compiled or on a GPU it is not looked
        at, since that would stall the GPU, and counts as background.

    Example:
        >>> import torch
        >>> hinge_loss(torch.tensor([[0.5, -2.0, 0.5]]), torch.tensor([[1.0, -1.0, -1.0]]))
        tensor([[0.5000, 0.0000, 1.5000]])

    Reference:
        Cortes and Vapnik, "Support-Vector Networks", Machine Learning 20, 1995.
    """
    if not is_index_target(logits, target) and target.dtype != torch.bool:
        target = (dense_target(logits, target) + 1) / 2  # -1..+1 -> the share of "yes"
    return binary_loss(
        _negative_hinge,
        logits,
        target,
        quality=quality,
        with_derivative=_with_derivative,
        class_weight=class_weight,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def _negative_hinge(z: Tensor) -> Tensor:
    return (1 + z).relu()


def _with_derivative(z: Tensor, derivative: Tensor | None) -> Tensor:
    loss = z.add_(1).relu_()
    if derivative is not None:
        torch.sign(loss, out=derivative)
    return loss


@CLASSIFICATION.register("hinge")
class HingeLoss(ClassificationLoss):
    """`hinge_loss` as a module.

    Args:
        class_weight: See `hinge_loss`.
        ignore_index: See `hinge_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> HingeLoss()(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
        tensor(0.5000)
    """

    function = staticmethod(hinge_loss)

    def __init__(
        self,
        *,
        class_weight: PerClass | None = None,
        ignore_index: int = -1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_weight, ignore_index, reduction)

    @staticmethod
    def dense_labels(shares: Tensor) -> Tensor:
        """See `ClassificationLoss.dense_labels`: -1 for "no"."""
        return 2 * shares - 1
