"""Softmax cross-entropy over classes that exclude each other."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from torch import Tensor

from detloss.classification.base import ClassificationLoss
from detloss.kernels import Reduction, softmax_loss
from detloss.registry import CLASSIFICATION, Fraction, PerClass


def softmax_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weight: Sequence[float] | Tensor | None = None,
    background_index: int = -1,
    ignore_index: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Cross-entropy of a softmax over the columns.

    ``L = -sum_c q_c ln p_c``, ``p = softmax(x)``, q the one-hot or given probabilities, smoothed
    to ``(1 - e) q + e mean(q)``, whose mean is 1 / K where q sums to 1. Gradient ``p - q``:
    softmax minus one-hot.

    Args:
        logits: Scores (..., K), floating point; K counts the background's column if there is one.
        target: Class indices (...,), 0..K-2 the foreground classes in order and K-1 the
            background; with `background_index` -1 that is simply the column. Or probabilities
            (..., K), one for each column.
        label_smoothing: e in [0, 1].
        class_weight: (K,) factor of each column; with class indices a mean divides by the sum of
            the factors of its rows. PyTorch's `cross_entropy` does the same.
        background_index: The background's column, where the logits have one: -1 the last, 0 the
            first.
        ignore_index: The class index of rows to leave out: loss and gradient exactly 0.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum", "image" -> (B,) sums over all axes but the first, or
            "mean" over the rows not ignored.

    Returns:
        Loss >= 0; ln K for equal logits. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If the logits are not floating point, or class indices not integer.
        ValueError: If shapes do not fit or an option is out of range.

    Note:
        On a CPU a class index outside 0..K-1 other than `ignore_index` is an error. Compiled or on
        a GPU it is not looked at, since that would stall the GPU, and is an indexing error.

    Example:
        >>> import torch
        >>> softmax_cross_entropy(torch.zeros(2, 4), torch.tensor([3, -1]))
        tensor([1.3863, 0.0000])

    Reference:
        Bishop, "Pattern Recognition and Machine Learning", 2006, equation 4.108; label smoothing:
        Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016, arXiv:1512.00567.
    """
    return softmax_loss(
        negative_log_softmax,
        logits,
        target,
        of_class=cross_entropy_of_class,
        label_smoothing=label_smoothing,
        class_weight=class_weight,
        background_index=background_index,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def cross_entropy_of_class(log_p: Tensor, _: Callable[[], Tensor]) -> tuple[Tensor, None]:
    """What a class of that log-probability costs; its gradient by ``ln p`` is -1."""
    return -log_p, None


def negative_log_softmax(x: Tensor) -> Tensor:
    """``-ln p`` of each column."""
    return -x.log_softmax(-1)


@CLASSIFICATION.register("softmax_cross_entropy")
class SoftmaxCrossEntropy(ClassificationLoss):
    """`softmax_cross_entropy` as a module.

    Args:
        label_smoothing: See `softmax_cross_entropy`.
        class_weight: See `softmax_cross_entropy`.
        background_index: See `softmax_cross_entropy`.
        ignore_index: See `softmax_cross_entropy`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> SoftmaxCrossEntropy()(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
        tensor(0.1269)
    """

    function = staticmethod(softmax_cross_entropy)
    background_columns: ClassVar[int] = 1

    def __init__(
        self,
        *,
        label_smoothing: Fraction = 0.0,
        class_weight: PerClass | None = None,
        background_index: int = -1,
        ignore_index: int = -1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_weight, ignore_index, reduction)
        self.label_smoothing = label_smoothing
        self.background_index = background_index
