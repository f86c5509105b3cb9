"""Focal loss of soft labels: between no and yes, how probable a wrong answer is."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from detloss.classification.base import ClassificationLoss
from detloss.kernels import Reduction, binary_loss, is_index_target
from detloss.kernels.elementary import (
    LARGE,
    cross_entropy,
    label_minus_sigmoid,
    modulated_softplus,
    modulated_softplus_with_derivative,
)
from detloss.options import check_fraction, check_non_negative
from detloss.registry import CLASSIFICATION, Fraction, NonNegative, PerClass


def soft_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    quality: Tensor | None = None,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
    label_smoothing: float = 0.0,
    class_weight: Sequence[float] | Tensor | None = None,
    ignore_index: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Focal loss of an independent answer for each class, with labels between no and yes.

    ``L = a q^gamma (-y ln p - (1 - y) ln(1 - p))``, ``p = sigmoid(x)``, with ``a = alpha y + (1 -
    alpha) (1 - y)`` and ``q = y (1 - p) + (1 - y) p``, the probability of a wrong answer where
    "yes" is right with probability y. For hard labels it is `sigmoid_focal_loss`, which is linear
    in the label between them. At gamma 0 and alpha 1/2 it is half the cross-entropy.

    Args:
        logits: Scores (..., C), floating point.
        target: Class indices (...,): 0..C-1 says yes to that class, C (``num_classes``) is
            background, yes to none. Or the label y of each class (..., C), in [0, 1].
        quality: (...,) in [0, 1], beside class indices: the label that the row's class gets instead
            of 1, such as the IoU of its box. It carries no gradient, and is not read in a row
            without a class.
        alpha: Weight of a "yes" in [0, 1] against 1 - alpha of a "no", between them for labels
            between; None for 1 of all.
        gamma: How much less an example counts the nearer its answer is to the truth. It is at least
            0.
        label_smoothing: e in [0, 1]: a label y becomes ``y (1 - e) + e / 2``.
        class_weight: (C,) factor of each class; a mean still divides by the plain count.
        ignore_index: The class index of rows to leave out: loss and gradient exactly 0.
        weight: (...,) or (..., C) factors; 0 silences the gradient exactly.
        reduction: "none" -> (..., C), "sum", "image" -> (B,) sums over all axes but the first, or
            "mean" over the elements of rows not ignored.

    Returns:
        Loss >= 0, finite with a finite gradient for every finite logit. float16 and bfloat16 are
        computed in float32.

    Raises:
        TypeError: If the logits are not floating point, or class indices not integer.
        ValueError: If shapes do not fit, a quality stands beside a dense target, or an option is
            out of range.

    Note:
        On a CPU a class index outside 0..C other than `ignore_index` is an error. Compiled or on a
        GPU it is not looked at, since that would stall the GPU, and counts as background.

    Example:
        At logit 0 every answer is wrong with probability 1/2, whatever the label:

        >>> import torch
        >>> soft_focal_loss(torch.zeros(1, 2), torch.tensor([1]), quality=torch.tensor([0.5]))
        tensor([[0.1300, 0.0866]])

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002,
        equations 4 and 5, with labels in [0, 1] as torchvision and YOLOv5 have them.
    """
    if alpha is not None:
        check_fraction("alpha", alpha)
    check_non_negative("gamma", gamma)
    hard = quality is None and not label_smoothing and is_index_target(logits, target)
    return binary_loss(
        partial(modulated_softplus, gamma=gamma),
        logits,
        target,
        quality=quality,
        with_derivative=partial(modulated_softplus_with_derivative, gamma=gamma),
        of_label=partial(_of_label, alpha=alpha, gamma=gamma),
        label_smoothing=label_smoothing,
        alpha=alpha if hard else None,
        no_weight=1.0 if hard or alpha is None else 1 - alpha,
        class_weight=class_weight,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def _of_label(x: Tensor, label: Tensor, alpha: float | None, gamma: float) -> tuple[Tensor, Tensor]:
    """``a q^gamma H`` and ``a q^gamma (p - y) + a gamma q^(gamma - 1) (1 - 2 y) p (1 - p) H``.

    H is the cross-entropy. The floor of q keeps the power's gradient finite where q is 0. Beyond
    LARGE p does not move, however large H is.
    """
    moderate = x.clamp(-LARGE, LARGE)
    distance, by_sigmoid = label_minus_sigmoid(moderate, label)
    by_sigmoid = torch.where(x == moderate, by_sigmoid, 0)
    entropy = cross_entropy(x, label)
    wrong = label * (-moderate).sigmoid() + (1 - label) * moderate.sigmoid()
    wrong = wrong.clamp(min=torch.finfo(x.dtype).tiny)
    modulation = wrong.pow(gamma)
    if alpha is not None:
        modulation = modulation * (alpha * label + (1 - alpha) * (1 - label))
    by_modulation = gamma * modulation / wrong * (1 - 2 * label) * by_sigmoid * entropy
    return modulation * entropy, by_modulation - modulation * distance


@CLASSIFICATION.register("soft_focal")
class SoftFocalLoss(ClassificationLoss):
    """`soft_focal_loss` as a module.

    Args:
        alpha: See `soft_focal_loss`.
        gamma: See `soft_focal_loss`.
        label_smoothing: See `soft_focal_loss`.
        class_weight: See `soft_focal_loss`.
        ignore_index: See `soft_focal_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> SoftFocalLoss()(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
        tensor(0.0652)
    """

    function = staticmethod(soft_focal_loss)

    def __init__(
        self,
        *,
        alpha: Fraction | None = 0.25,
        gamma: NonNegative = 2.0,
        label_smoothing: Fraction = 0.0,
        class_weight: PerClass | None = None,
        ignore_index: int = -1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_weight, ignore_index, reduction)
        self.alpha = alpha
        self.gamma = gamma
        self.label_smoothing = label_smoothing
