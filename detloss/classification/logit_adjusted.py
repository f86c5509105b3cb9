"""Logit-adjusted loss: softmax cross-entropy that asks of rare classes for a larger margin."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from detloss.classification.base import ClassificationLoss
from detloss.classification.counts import log_prior
from detloss.classification.softmax_cross_entropy import (
    cross_entropy_of_class,
    negative_log_softmax,
)
from detloss.kernels import Reduction, is_index_target, softmax_loss
from detloss.options import check_non_negative
from detloss.registry import CLASSIFICATION, Fraction, NonNegative, PerClass


def logit_adjusted_loss(
    logits: Tensor,
    target: Tensor,
    *,
    counts: Sequence[float] | Tensor | None = None,
    tau: float = 1.0,
    label_smoothing: float = 0.0,
    class_weight: Sequence[float] | Tensor | None = None,
    background_index: int = -1,
    ignore_index: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Cross-entropy of a softmax over logits that the frequency of their class is added to.

    ``L = -sum_c q_c ln p_c``, ``p = softmax(x + tau ln(n / sum n))``, n the examples of each
    column, q the one-hot or given probabilities, smoothed to ``(1 - e) q + e mean(q)``, whose mean
    is 1 / K where q sums to 1. Gradient ``p - q``. At tau 0 it is `softmax_cross_entropy`; at tau 1
    it is also known as balanced softmax.

    It is for long-tailed data: what is frequent gets its lead for free in training, so that the
    logits themselves, which inference looks at without the counts, learn to rank classes as if all
    were equally frequent. It costs accuracy on frequent classes. Do not also subtract the prior at
    inference: that is the other half of the paper, and both undo each other's balance.

    Args:
        logits: Scores (..., K), floating point; K counts the background's column if there is one.
        target: Class indices (...,), 0..K-2 the foreground classes in order and K-1 the
            background; with `background_index` -1 that is simply the column. Or probabilities
            (..., K), one for each column.
        counts: (K,) examples of each column, > 0; None for columns that are equally frequent. The
            background's is one of them: of the rows that a sampler takes, it also makes up for
            there being so many. The mean of the others leaves its balance against them alone.
        tau: How much of the frequency is made up for, >= 0.
        label_smoothing: e in [0, 1].
        class_weight: (K,) factor of each column; with class indices a mean divides by the sum of
            the factors of its rows.
        background_index: The background's column, where the logits have one: -1 the last, 0 the
            first.
        ignore_index: The class index of rows to leave out: loss and gradient exactly 0.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum", "image" -> (B,) sums over all axes but the first, or
            "mean" over the rows not ignored.

    Returns:
        Loss >= 0. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If the logits are not floating point, or class indices not integer.
        ValueError: If shapes do not fit or an option is out of range.

    Note:
        On a CPU a class index outside 0..K-1 other than `ignore_index` is an error. Compiled or on
        a GPU it is not looked at, since that would stall the GPU, and is an indexing error.

    Example:
        Equal logits of columns seen 3 times and once: ``-ln(3/4)`` and ``-ln(1/4)``.

        >>> import torch
        >>> logit_adjusted_loss(torch.zeros(2, 2), torch.tensor([0, 1]), counts=[3, 1])
        tensor([0.2877, 1.3863])

    Reference:
        Menon et al., "Long-tail Learning via Logit Adjustment", ICLR 2021, arXiv:2007.07314.
    """
    check_non_negative("tau", tau)
    is_index_target(logits, target)  # refuses what is no logits before their columns are counted
    return softmax_loss(
        negative_log_softmax,
        logits,
        target,
        of_class=cross_entropy_of_class,
        offset=None if counts is None else tau * log_prior(counts, logits),
        label_smoothing=label_smoothing,
        class_weight=class_weight,
        background_index=background_index,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


@CLASSIFICATION.register("logit_adjusted")
class LogitAdjustedLoss(ClassificationLoss):
    """`logit_adjusted_loss` as a module.

    Args:
        counts: See `logit_adjusted_loss`.
        tau: See `logit_adjusted_loss`.
        label_smoothing: See `logit_adjusted_loss`.
        class_weight: See `logit_adjusted_loss`.
        background_index: See `logit_adjusted_loss`.
        ignore_index: See `logit_adjusted_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> LogitAdjustedLoss(counts=[3, 1])(torch.zeros(2, 2), torch.tensor([0, 1]))
        tensor(0.8370)
    """

    function = staticmethod(logit_adjusted_loss)
    background_columns: ClassVar[int] = 1
    counts: Tensor | None

    def __init__(
        self,
        *,
        counts: PerClass | None = None,
        tau: NonNegative = 1.0,
        label_smoothing: Fraction = 0.0,
        class_weight: PerClass | None = None,
        background_index: int = -1,
        ignore_index: int = -1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_weight, ignore_index, reduction)
        self.label_smoothing = label_smoothing
        self.keep_per_class("counts", counts, positive=True)
        self.tau = tau
        self.background_index = background_index
