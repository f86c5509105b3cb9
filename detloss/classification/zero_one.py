"""0-1 loss: the share of wrong answers. A metric, since it has no gradient."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from detloss.classification.base import ClassificationLoss
from detloss.kernels import Reduction, softmax_loss
from detloss.options import check_fraction
from detloss.registry import CLASSIFICATION, Fraction, PerClass


def zero_one_loss(
    logits: Tensor,
    target: Tensor,
    *,
    tolerance: float | None = None,
    class_weight: Sequence[float] | Tensor | None = None,
    background_index: int = -1,
    ignore_index: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """1 for each row that is answered wrongly, 0 for each that is answered rightly.

    ``L = [Y != f(x)]`` with ``f = argmax``; with a tolerance T ``L = [|Y - f(x)| >= T]``, where
    ``f(x)`` is the softmax probability of the true class and ``Y = 1``. It is flat almost
    everywhere: the result carries **no gradient** and cannot be trained on. Its mean is the error
    rate.

    Args:
        logits: Scores (..., K), floating point; K counts the background's column if there is one.
        target: Class indices (...,), 0..K-2 the foreground classes in order and K-1 the
            background; with `background_index` -1 that is simply the column. Or probabilities
            (..., K): the share of the loss of each class, were it the true one.
        tolerance: T in [0, 1], the shortfall of the true class's probability that already counts
            as wrong; None compares with the argmax.
        class_weight: (K,) factor of each column; with class indices a mean divides by the sum of
            the factors of its rows.
        background_index: The background's column, where the logits have one: -1 the last, 0 the
            first.
        ignore_index: The class index of rows to leave out: they count 0, and not in a mean.
        weight: (...,) factor of each row.
        reduction: "none" -> (...,), "sum", "image" -> (B,) sums over all axes but the first, or
            "mean" over the rows not ignored.

    Returns:
        Loss >= 0: of class indices 0 or 1 a row, of probabilities the share that is answered
        wrongly, times the factors. Without a gradient: ``requires_grad`` is False.

    Raises:
        TypeError: If the logits are not floating point, or class indices not integer.
        ValueError: If shapes do not fit or the tolerance is outside [0, 1].

    Note:
        Where several columns share the largest score, the first of them is the answer.

    Example:
        >>> import torch
        >>> logits, target = torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0])
        >>> zero_one_loss(logits, target), zero_one_loss(logits, target, tolerance=0.2)
        (tensor([0., 1.]), tensor([1., 1.]))

    Reference:
        Shalev-Shwartz and Ben-David, "Understanding Machine Learning", 2014, section 3.2.
    """
    if tolerance is not None:
        check_fraction("tolerance", tolerance)

    def wrong(x: Tensor) -> Tensor:
        if tolerance is not None:
            return (1 - x.softmax(-1) >= tolerance).to(x.dtype)
        answer = x.argmax(-1, keepdim=True)
        return (torch.arange(x.shape[-1], device=x.device) != answer).to(x.dtype)

    with torch.no_grad():
        return softmax_loss(
            wrong,
            logits,
            target,
            class_weight=class_weight,
            background_index=background_index,
            weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
        )


@CLASSIFICATION.register("zero_one")
class ZeroOneLoss(ClassificationLoss):
    """`zero_one_loss` as a module: a metric, without gradient.

    Args:
        tolerance: See `zero_one_loss`.
        class_weight: See `zero_one_loss`.
        background_index: See `zero_one_loss`.
        ignore_index: See `zero_one_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> ZeroOneLoss()(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
        tensor(0.)
    """

    function = staticmethod(zero_one_loss)
    background_columns: ClassVar[int] = 1
    differentiable: ClassVar[bool] = False

    def __init__(
        self,
        *,
        tolerance: Fraction | None = None,
        class_weight: PerClass | None = None,
        background_index: int = -1,
        ignore_index: int = -1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_weight, ignore_index, reduction)
        self.tolerance = tolerance
        self.background_index = background_index
