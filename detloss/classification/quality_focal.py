"""Quality focal loss: focal loss whose label says how well the box fits."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from detloss.classification.base import ClassificationLoss
from detloss.kernels import Reduction, binary_loss
from detloss.kernels.elementary import (
    LARGE,
    cross_entropy,
    label_minus_sigmoid,
    modulated_softplus,
    modulated_softplus_with_derivative,
)
from detloss.options import check_non_negative
from detloss.registry import CLASSIFICATION, NonNegative, PerClass


def quality_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    quality: Tensor | None = None,
    beta: float = 2.0,
    class_weight: Sequence[float] | Tensor | None = None,
    ignore_index: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Quality focal loss (QFL) of an independent answer for each class.

    ``L = |y - p|^beta (-y ln p - (1 - y) ln(1 - p))``, ``p = sigmoid(x)``. The label y of the
    row's class is its quality, that of every other class 0, whose loss is ``-p^beta ln(1 - p)``.
    The gradient goes through both factors. It is for detectors that rank boxes by their class score
    alone: the score learns to say how well the box fits.

    Args:
        logits: Scores (..., C), floating point.
        target: Class indices (...,): 0..C-1 says yes to that class, C (``num_classes``) is
            background, yes to none. Or the label y of each class (..., C), in [0, 1].
        quality: (...,) in [0, 1], beside class indices: the label that the row's class gets instead
            of 1, such as the IoU of its box. It carries no gradient, and is not read in a row
            without a class.
        beta: An exponent, >= 0. How much less an example counts the nearer its answer is to its
            label; at 0 it is the cross-entropy.
        class_weight: (C,) factor of each class; a mean still divides by the plain count.
        ignore_index: The class index of rows to leave out: loss and gradient exactly 0.
        weight: (...,) or (..., C) factors; 0 silences the gradient exactly.
        reduction: "none" -> (..., C), "sum", "image" -> (B,) sums over all axes but the first, or
            "mean" over the elements of rows not ignored.

    Returns:
        Loss >= 0, 0 where ``p = y``, finite with a finite gradient for every finite logit. float16
        and bfloat16 are computed in float32.

    Raises:
        TypeError: If the logits are not floating point, or class indices not integer.
        ValueError: If shapes do not fit, a quality stands beside a dense target, or beta is
            negative.

    Note:
        On a CPU a class index outside 0..C other than `ignore_index` is an error. Compiled or on a
        GPU it is not looked at, since that would stall the GPU, and counts as background.

    Example:
        At logit 0 a label of 1/2 is met exactly; a background costs ``0.25 ln 2``.

        >>> import torch
        >>> quality_focal_loss(torch.zeros(1, 2), torch.tensor([1]), quality=torch.tensor([0.5]))
        tensor([[0.1733, 0.0000]])

    Reference:
        Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388, equation 2.
    """
    check_non_negative("beta", beta)
    return binary_loss(
        partial(modulated_softplus, gamma=beta),
        logits,
        target,
        quality=quality,
        with_derivative=partial(modulated_softplus_with_derivative, gamma=beta),
        of_label=partial(_of_label, beta=beta),
        class_weight=class_weight,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def _of_label(x: Tensor, label: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """``|d|^beta H`` and its gradient ``-|d|^beta d - beta |d|^(beta - 1) sign(d) p (1 - p) H``.

    d is ``y - p`` and H the cross-entropy. The floor of ``|d|`` keeps the power's gradient finite
    where the label is met. Beyond LARGE p does not move, however large H is.
    """
    moderate = x.clamp(-LARGE, LARGE)
    distance, by_sigmoid = label_minus_sigmoid(moderate, label)
    by_sigmoid = torch.where(x == moderate, by_sigmoid, 0)
    entropy = cross_entropy(x, label)
    size = distance.abs().clamp(min=torch.finfo(x.dtype).tiny)
    modulation = size.pow(beta)
    by_modulation = beta * modulation / size * distance.sign() * by_sigmoid * entropy
    return modulation * entropy, -modulation * distance - by_modulation


@CLASSIFICATION.register("quality_focal")
class QualityFocalLoss(ClassificationLoss):
    """`quality_focal_loss` as a module.

    Args:
        beta: See `quality_focal_loss`.
        class_weight: See `quality_focal_loss`.
        ignore_index: See `quality_focal_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> QualityFocalLoss()(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
        tensor(0.0875)
    """

    function = staticmethod(quality_focal_loss)
    default_label: ClassVar[str] = "iou"

    def __init__(
        self,
        *,
        beta: NonNegative = 2.0,
        class_weight: PerClass | None = None,
        ignore_index: int = -1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_weight, ignore_index, reduction)
        self.beta = beta
