"""Multi-label softmax cross-entropy: one softmax, several true classes that share it equally."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from detloss.classification.base import ClassificationLoss
from detloss.classification.softmax_cross_entropy import (
    cross_entropy_of_class,
    negative_log_softmax,
)
from detloss.kernels import Reduction, dense_target, is_index_target, softmax_loss
from detloss.registry import CLASSIFICATION, Fraction, PerClass


def multilabel_softmax_cross_entropy(
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
    """Softmax cross-entropy averaged over the M positive classes of a row.

    ``L = -(1 / M) sum_{c positive} ln p_c``, ``p = softmax(x)``. Gradient ``p - y / M``, y the
    multi-hot labels. With one positive class it is `softmax_cross_entropy`.

    Args:
        logits: Scores (..., K), floating point; K counts the background's column if there is one.
        target: Class indices (...,), 0..K-2 the foreground classes in order and K-1 the
            background; with `background_index` -1 that is simply the column. Or multi-hot labels
            (..., K) of any dtype; positive numbers other than 1 weigh the classes, and M is their
            sum. A row without a positive class has loss 0.
        label_smoothing: e in [0, 1]. The shares ``y / M`` become ``(1 - e) y / M + e / K``; a row
            without a positive class keeps its loss of 0.
        class_weight: (K,) factor of each column; with class indices a mean divides by the sum of
            the factors of its rows.
        background_index: The background's column, where the logits have one: -1 the last, 0 the
            first.
        ignore_index: The class index of rows to leave out: loss and gradient exactly 0.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum", "image" -> (B,) sums over all axes but the first, or
            "mean" over the rows not ignored.

    Returns:
        Loss >= 0; over M equal labels it is ln M at least. float16 and bfloat16 are computed in
        float32.

    Raises:
        TypeError: If the logits are not floating point, or class indices not integer.
        ValueError: If shapes do not fit or an option is out of range.

    Note:
        On a CPU a class index outside 0..K-1 other than `ignore_index` is an error. Compiled or on
        a GPU it is not looked at, since that would stall the GPU, and is an indexing error.

    Example:
        >>> import torch
        >>> multilabel_softmax_cross_entropy(torch.zeros(1, 4), torch.tensor([[1, 0, 1, 0]]))
        tensor([1.3863])

    Reference:
        Mahajan et al., "Exploring the Limits of Weakly Supervised Pretraining", ECCV 2018,
        arXiv:1805.00932: one softmax, each of k true labels with probability 1/k.
    """
    if not is_index_target(logits, target):
        target = dense_target(logits, target)
        target = target / target.sum(-1, keepdim=True).clamp(min=1e-12)
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


@CLASSIFICATION.register("multilabel_softmax_cross_entropy")
class MultilabelSoftmaxCrossEntropy(ClassificationLoss):
    """`multilabel_softmax_cross_entropy` as a module.

    Args:
        label_smoothing: See `multilabel_softmax_cross_entropy`.
        class_weight: See `multilabel_softmax_cross_entropy`.
        background_index: See `multilabel_softmax_cross_entropy`.
        ignore_index: See `multilabel_softmax_cross_entropy`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> MultilabelSoftmaxCrossEntropy()(torch.tensor([[0.0, 2.0]]), torch.tensor([[1, 1]]))
        tensor(1.1269)
    """

    function = staticmethod(multilabel_softmax_cross_entropy)
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
