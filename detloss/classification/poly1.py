"""Poly-1 loss: cross-entropy with another weight of the first power of its series."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from detloss.classification.base import ClassificationLoss
from detloss.kernels import Reduction, softmax_loss
from detloss.kernels.elementary import without_first_power
from detloss.registry import CLASSIFICATION, AtLeastMinusOne, Fraction, PerClass


def poly1_loss(
    logits: Tensor,
    target: Tensor,
    *,
    epsilon: float = 1.0,
    label_smoothing: float = 0.0,
    class_weight: Sequence[float] | Tensor | None = None,
    background_index: int = -1,
    ignore_index: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Poly-1 cross-entropy of a softmax over the columns.

    ``L = sum_c q_c (-ln p_c + epsilon (1 - p_c))``, ``p = softmax(x)``, q the one-hot or given
    probabilities, smoothed to ``(1 - e) q + e mean(q)``, whose mean is 1 / K where q sums to 1.
    As ``-ln p = (1 - p) + (1 - p)^2 / 2 + ...``, the first power counts ``1 + epsilon``. For a true
    class t, not smoothed, the gradient is ``(1 + epsilon p_t) (p - onehot)``.

    Above 0 it pulls longer at what is answered right, for networks that are too little sure. Below
    0 it lets go sooner, for those that are too sure; at -1 the loss starts with the square. The
    paper has 2 for ImageNet and -1 for the classes of Mask R-CNN. It costs what cross-entropy
    does, and a number to be searched for.

    Args:
        logits: Scores (..., K), floating point; K counts the background's column if there is one.
        target: Class indices (...,), 0..K-2 the foreground classes in order and K-1 the
            background; with `background_index` -1 that is simply the column. Or probabilities
            (..., K), one for each column.
        epsilon: What is added to the weight 1 of the first power, >= -1; at 0 it is
            `softmax_cross_entropy`.
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
        Loss >= 0, finite with a finite gradient for every finite logit. float16 and bfloat16 are
        computed in float32.

    Raises:
        TypeError: If the logits are not floating point, or class indices not integer.
        ValueError: If shapes do not fit or an option is out of range.

    Note:
        On a CPU a class index outside 0..K-1 other than `ignore_index` is an error. Compiled or on
        a GPU it is not looked at, since that would stall the GPU, and is an indexing error.

    Example:
        ``p = 1/4`` each: ``ln 4 + 3/4``, and ``ln 4 - 3/4``.

        >>> import torch
        >>> poly1_loss(torch.zeros(1, 4), torch.tensor([3]))
        tensor([2.1363])
        >>> poly1_loss(torch.zeros(1, 4), torch.tensor([3]), epsilon=-1.0)
        tensor([0.6363])

    Reference:
        Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss
        Functions", ICLR 2022, arXiv:2204.12511.
    """
    check_epsilon(epsilon)
    return softmax_loss(
        partial(_terms, epsilon=epsilon),
        logits,
        target,
        of_class=partial(_of_class, epsilon=epsilon),
        label_smoothing=label_smoothing,
        class_weight=class_weight,
        background_index=background_index,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def check_epsilon(epsilon: float) -> None:
    """Raises ValueError for less than -1: the first power, and with it the loss, would be below 0.

    A nan is none either.
    """
    if not epsilon >= -1:
        raise ValueError(f"epsilon must be at least -1, got {epsilon}")


def plus_first_power(loss: Tensor, wrong: Tensor, epsilon: float, share: float = 1.0) -> Tensor:
    """``share L + epsilon w`` with all digits, w the probability ``1 - p`` of a wrong answer and L
    its cross-entropy ``-ln p``; of positive terms alone where the sum is at least 0 everywhere.
    """
    if epsilon < 0:
        return (share + epsilon) * wrong + share * without_first_power(wrong, loss)
    return (loss if share == 1 else share * loss).add(wrong, alpha=epsilon)


def _of_class(
    log_p: Tensor, one_minus_p: Callable[[], Tensor], epsilon: float
) -> tuple[Tensor, Tensor]:
    """The cost ``-ln p + epsilon (1 - p)``, and its gradient by ``ln p``, ``-1 - epsilon p``."""
    rest = one_minus_p()
    return plus_first_power(-log_p, rest, epsilon), epsilon * rest - (1 + epsilon)


def _terms(x: Tensor, epsilon: float) -> Tensor:
    """``-ln p + epsilon (1 - p)`` of each column.

    Only the largest column can come near 1: there the probability of the others is added up.
    """
    p = x.softmax(-1)
    largest = torch.arange(x.shape[-1], device=x.device) == x.argmax(-1, keepdim=True)
    others = p.masked_fill(largest, 0).sum(-1, keepdim=True)
    return plus_first_power(-x.log_softmax(-1), torch.where(largest, others, 1 - p), epsilon)


@CLASSIFICATION.register("poly1")
class Poly1Loss(ClassificationLoss):
    """`poly1_loss` as a module.

    Args:
        epsilon: See `poly1_loss`.
        label_smoothing: See `poly1_loss`.
        class_weight: See `poly1_loss`.
        background_index: See `poly1_loss`.
        ignore_index: See `poly1_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> Poly1Loss()(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
        tensor(0.2461)
    """

    function = staticmethod(poly1_loss)
    background_columns: ClassVar[int] = 1

    def __init__(
        self,
        *,
        epsilon: AtLeastMinusOne = 1.0,
        label_smoothing: Fraction = 0.0,
        class_weight: PerClass | None = None,
        background_index: int = -1,
        ignore_index: int = -1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_weight, ignore_index, reduction)
        self.label_smoothing = label_smoothing
        self.epsilon = epsilon
        self.background_index = background_index
