"""Softmax focal loss: focal loss over classes that exclude each other."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from detloss.classification.base import ClassificationLoss
from detloss.kernels import Reduction, softmax_loss
from detloss.options import check_non_negative
from detloss.registry import CLASSIFICATION, Fraction, NonNegative, PerClass


def softmax_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: Sequence[float] | Tensor | None = None,
    gamma: float = 2.0,
    label_smoothing: float = 0.0,
    class_weight: Sequence[float] | Tensor | None = None,
    background_index: int = -1,
    ignore_index: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Focal loss of a softmax over the columns.

    ``L = -sum_c alpha_c q_c (1 - p_c)^gamma ln p_c``, ``p = softmax(x)``, q the one-hot or given
    probabilities, smoothed to ``(1 - e) q + e mean(q)``, whose mean is 1 / K where q sums to 1. For
    a true class t, not smoothed, the gradient is
    ``alpha_t (1 - p_t)^gamma (1 - gamma p_t ln(p_t) / (1 - p_t)) (p - onehot)``. At gamma 0 it
    is `softmax_cross_entropy`.

    Args:
        logits: Scores (..., K), floating point; K counts the background's column if there is one.
        target: Class indices (...,), 0..K-2 the foreground classes in order and K-1 the
            background; with `background_index` -1 that is simply the column. Or probabilities
            (..., K), one for each column.
        alpha: (K,) weights, one a column, or None. A scalar would only scale the loss, so it is
            refused; the weight of positives against negatives is `sigmoid_focal_loss`'s.
        gamma: How much less an example counts the nearer its answer is to the truth, >= 0.
        label_smoothing: e in [0, 1].
        class_weight: (K,) factor of each column; with class indices a mean divides by the sum of
            the factors of its rows. The factors of alpha are not in that sum.
        background_index: The background's column, where the logits have one: -1 the last, 0 the
            first.
        ignore_index: The class index of rows to leave out: loss and gradient exactly 0.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum", "image" -> (B,) sums over all axes but the first, or
            "mean" over the rows not ignored.

    Returns:
        Loss >= 0, finite with a finite gradient for every gamma and finite logit. float16 and
        bfloat16 are computed in float32.

    Raises:
        TypeError: If the logits are not floating point, class indices not integer or alpha is a
            scalar.
        ValueError: If shapes do not fit or an option is out of range.

    Note:
        On a CPU a class index outside 0..K-1 other than `ignore_index` is an error. Compiled or on
        a GPU it is not looked at, since that would stall the GPU, and is an indexing error.

    Example:
        ``p = 1/4`` each: ``(3/4)^2 ln 4``.

        >>> import torch
        >>> softmax_focal_loss(torch.zeros(1, 4), torch.tensor([3]))
        tensor([0.7798])

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002,
        equation 4; its section 3 notes the extension to several classes.
    """
    check_non_negative("gamma", gamma)
    if isinstance(alpha, (int, float)) or (isinstance(alpha, Tensor) and alpha.ndim == 0):
        raise TypeError(
            f"alpha must be (K,) values, one per column, or None, got {alpha}: "
            "with softmax a scalar only scales the loss"
        )
    return softmax_loss(
        partial(_focal_terms, gamma=gamma),
        logits,
        target,
        of_class=partial(_of_class, gamma=gamma),
        label_smoothing=label_smoothing,
        alpha=alpha,
        class_weight=class_weight,
        background_index=background_index,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def _of_class(
    log_p: Tensor, one_minus_p: Callable[[], Tensor], gamma: float
) -> tuple[Tensor, Tensor]:
    """The cost ``(1 - p)^gamma * -ln p``, and its gradient by ``ln p``.

    That is ``-(1 - p)^gamma (1 + gamma p * -ln p / (1 - p))``.
    """
    rest = one_minus_p()
    modulation = rest.pow(gamma)
    cost = -log_p
    ratio = log_p.exp().mul_(cost).div_(rest)
    ratio.masked_fill_(rest <= 0, 1)  # towards 1 as p goes to 1
    by_log_p = ratio.mul_(-gamma).sub_(1).mul_(modulation)
    return cost.mul_(modulation), by_log_p


def _focal_terms(x: Tensor, gamma: float) -> Tensor:
    """``(1 - p)^gamma * -ln p`` of each column; the power as an exponential of ``ln(1 - p)``."""
    log_p = x.log_softmax(-1)
    return -(gamma * _log_rest(x, log_p).clamp(max=-torch.finfo(x.dtype).tiny)).exp() * log_p


def _log_rest(x: Tensor, log_p: Tensor) -> Tensor:
    """``ln(1 - p)`` of each column, exact and with a finite gradient even where p rounds to 1.

    Only the largest column can come near 1: there the probability of the others is added up. The
    largest logit is taken off first: the sum of exponentials of large logits is a large number,
    whose last bit is coarse.
    """
    x = x - x.detach().amax(-1, keepdim=True)
    largest = torch.arange(x.shape[-1], device=x.device) == x.argmax(-1, keepdim=True)
    others = x.masked_fill(largest, torch.finfo(x.dtype).min / 2).logsumexp(-1, keepdim=True)
    rest_of_largest = others - x.logsumexp(-1, keepdim=True)
    rest_of_smaller = torch.log1p(-log_p.masked_fill(largest, -1.0).exp())
    return torch.where(largest, rest_of_largest, rest_of_smaller)


@CLASSIFICATION.register("softmax_focal")
class SoftmaxFocalLoss(ClassificationLoss):
    """`softmax_focal_loss` as a module.

    Args:
        alpha: See `softmax_focal_loss`.
        gamma: See `softmax_focal_loss`.
        label_smoothing: See `softmax_focal_loss`.
        class_weight: See `softmax_focal_loss`.
        background_index: See `softmax_focal_loss`.
        ignore_index: See `softmax_focal_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> SoftmaxFocalLoss()(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
        tensor(0.0018)
    """

    function = staticmethod(softmax_focal_loss)
    background_columns: ClassVar[int] = 1
    alpha: Tensor | None

    def __init__(
        self,
        *,
        alpha: PerClass | None = None,
        gamma: NonNegative = 2.0,
        label_smoothing: Fraction = 0.0,
        class_weight: PerClass | None = None,
        background_index: int = -1,
        ignore_index: int = -1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_weight, ignore_index, reduction)
        self.label_smoothing = label_smoothing
        self.keep_per_class("alpha", alpha)
        self.gamma = gamma
        self.background_index = background_index
