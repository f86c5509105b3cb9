"""Sigmoid focal loss: cross-entropy that counts less what is already answered right."""

import math
from collections.abc import Sequence
from functools import partial

from torch import Tensor

from detloss.classification.base import ClassificationLoss
from detloss.kernels import Reduction, binary_loss
from detloss.kernels.elementary import modulated_softplus, modulated_softplus_with_derivative
from detloss.options import check_non_negative
from detloss.registry import CLASSIFICATION, Fraction, NonNegative, PerClass


def sigmoid_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    quality: Tensor | None = None,
    alpha: float | Sequence[float] | Tensor | None = 0.25,
    gamma: float = 2.0,
    label_smoothing: float = 0.0,
    class_weight: Sequence[float] | Tensor | None = None,
    ignore_index: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Focal loss of an independent yes or no for each class.

    ``L = -alpha y (1 - p)^gamma ln p - (1 - alpha) (1 - y) p^gamma ln(1 - p)``, ``p =
    sigmoid(x)``; note the minus signs. With ``q`` the probability of the wrong answer (``1 - p``
    for a positive, ``p`` for a negative) and ``l = -ln(1 - q)``, the gradient is ``+-alpha_t
    q^gamma (q + gamma (1 - q) l)``, minus for a positive. At gamma 0 it is
    `balanced_cross_entropy`.

    Args:
        logits: Scores (..., C), floating point. Start training with their bias at `prior_bias`,
            or the background drowns the first steps.
        target: Class indices (...,): 0..C-1 says yes to that class, C (``num_classes``) is
            background, yes to none. Or the label y of each class (..., C), in [0, 1].
            The loss is linear in it, as mixup and label smoothing mean it.
        quality: (...,) in [0, 1], beside class indices: the label that the row's class gets instead
            of 1, such as the IoU of its box. It carries no gradient, and is not read in a row
            without a class.
        alpha: Weight of the positive term in [0, 1], 1 - alpha of the negative: a float, (C,)
            values, one per class, or None for 1 and 1. At 0.25 a positive counts a third of a
            negative of the same probability.
        gamma: How much less an example counts the nearer its answer is to the truth. It is at least
            0.
        label_smoothing: e in [0, 1]: a label y becomes ``y (1 - e) + e / 2``.
        class_weight: (C,) factor of each class; a mean still divides by the plain count.
        ignore_index: The class index of rows to leave out: loss and gradient exactly 0.
        weight: (...,) or (..., C) factors; 0 silences the gradient exactly.
        reduction: "none" -> (..., C), "sum", "image" -> (B,) sums over all axes but the first, or
            "mean" over the elements of rows not ignored. A detector divides the sum by its
            positives; a mean over all anchors all but vanishes.

    Returns:
        Loss >= 0, finite with a finite gradient for every gamma and finite logit. float16 and
        bfloat16 are computed in float32.

    Raises:
        TypeError: If the logits are not floating point, or class indices not integer.
        ValueError: If shapes do not fit or an option is out of range.

    Note:
        On a CPU a class index outside 0..C other than `ignore_index` is an error. Compiled or on a
        GPU it is not looked at, since that would stall the GPU, and counts as background.

    Example:
        At logit 0, ``q^gamma l = 0.25 ln 2``: a quarter of it for the positive, three for the rest.

        >>> import torch
        >>> sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([1]))
        tensor([[0.1300, 0.0433]])
        >>> sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([1]), alpha=None)
        tensor([[0.1733, 0.1733]])
        >>> sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([1]), alpha=[0.5, 1.0])
        tensor([[0.0866, 0.1733]])

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002,
        equation 5.
    """
    check_non_negative("gamma", gamma)
    return binary_loss(
        partial(modulated_softplus, gamma=gamma),
        logits,
        target,
        quality=quality,
        with_derivative=partial(modulated_softplus_with_derivative, gamma=gamma),
        label_smoothing=label_smoothing,
        alpha=alpha,
        class_weight=class_weight,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def prior_bias(pi: float = 0.01) -> float:
    """The bias of a focal head's last layer with which every class starts at probability `pi`.

    ``b = -ln((1 - pi) / pi)``. Without it the many background anchors start at probability 1/2
    and their loss, and its gradient, swamps the first iterations.

    Args:
        pi: Probability in (0, 1) of each class at the start.

    Raises:
        ValueError: If `pi` is outside (0, 1).

    Example:
        >>> round(prior_bias(0.01), 3)
        -4.595

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, section 4.1.
    """
    if not 0 < pi < 1:
        raise ValueError(f"pi must be in (0, 1), got {pi}")
    return -math.log((1 - pi) / pi)


@CLASSIFICATION.register("sigmoid_focal")
class SigmoidFocalLoss(ClassificationLoss):
    """`sigmoid_focal_loss` as a module.

    Args:
        alpha: See `sigmoid_focal_loss`.
        gamma: See `sigmoid_focal_loss`.
        label_smoothing: See `sigmoid_focal_loss`.
        class_weight: See `sigmoid_focal_loss`.
        ignore_index: See `sigmoid_focal_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> SigmoidFocalLoss()(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
        tensor(0.0652)
    """

    function = staticmethod(sigmoid_focal_loss)
    alpha: float | Tensor | None

    def __init__(
        self,
        *,
        alpha: Fraction | PerClass | None = 0.25,
        gamma: NonNegative = 2.0,
        label_smoothing: Fraction = 0.0,
        class_weight: PerClass | None = None,
        ignore_index: int = -1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_weight, ignore_index, reduction)
        self.label_smoothing = label_smoothing
        self.keep_per_class("alpha", alpha, highest=1)
        self.gamma = gamma
