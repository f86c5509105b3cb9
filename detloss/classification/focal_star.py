"""Focal star loss: cross-entropy of a steeper and shifted logit, the other focal loss."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from detloss.classification.base import ClassificationLoss
from detloss.kernels import Reduction, binary_loss, softplus, softplus_with_derivative
from detloss.kernels.elementary import LARGE
from detloss.options import check_positive
from detloss.registry import CLASSIFICATION, Fraction, PerClass, Positive


def focal_star_loss(
    logits: Tensor,
    target: Tensor,
    *,
    quality: Tensor | None = None,
    alpha: float | Sequence[float] | Tensor | None = None,
    gamma: float = 2.0,
    beta: float = 1.0,
    label_smoothing: float = 0.0,
    class_weight: Sequence[float] | Tensor | None = None,
    ignore_index: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Focal star loss (FL*) of an independent yes or no for each class.

    ``L = -y ln(sigmoid(gamma x + beta)) / gamma - (1 - y) ln(sigmoid(-gamma x + beta)) / gamma``,
    times the weights of alpha. With ``s = sigmoid(gamma x_t + beta)``, ``x_t`` the logit of the
    right answer, the gradient by ``x_t`` is ``s - 1``. At gamma 1 and beta 0 it is
    `balanced_cross_entropy`.

    It does what focal loss does, to the accuracy of focal loss in the paper, and is convex: an
    example that is answered right counts little, one that is answered wrong pulls with full force.
    Its cost is the cross-entropy's.

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
            values, one per class, or None for 1 and 1.
        gamma: How much less an example counts the nearer its answer is to the truth. It is larger
            than 0, and how steep the sigmoid is.
        beta: The paper's beta. How far the sigmoid is shifted: right answers count little from
            ``x_t = -beta / gamma`` on, rather than from 0. The paper goes with (gamma, beta) of
            (2, 1) and (4, 0).
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
        ValueError: If shapes do not fit or an option is out of range.

    Note:
        On a CPU a class index outside 0..C other than `ignore_index` is an error. Compiled or on a
        GPU it is not looked at, since that would stall the GPU, and counts as background.

    Example:
        At logit 0 all answers cost ``ln(1 + exp(-1)) / 2``.

        >>> import torch
        >>> focal_star_loss(torch.zeros(1, 2), torch.tensor([1]))
        tensor([[0.1566, 0.1566]])

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002,
        appendix A, equations 7 and 8.
    """
    check_positive("gamma", gamma)
    return binary_loss(
        partial(_negative, gamma=gamma, beta=beta),
        logits,
        target,
        quality=quality,
        with_derivative=partial(_with_derivative, gamma=gamma, beta=beta),
        label_smoothing=label_smoothing,
        alpha=alpha,
        class_weight=class_weight,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def _negative(z: Tensor, gamma: float, beta: float) -> Tensor:
    """``ln(1 + exp(gamma z - beta)) / gamma``: linear far out, before ``gamma z`` overflows."""
    far = (LARGE + abs(beta)) / gamma
    near = softplus(gamma * z.clamp(max=far) - beta) / gamma
    return torch.where(z < far, near, z - beta / gamma)


def _with_derivative(z: Tensor, derivative: Tensor | None, gamma: float, beta: float) -> Tensor:
    """The same with its derivative ``sigmoid(gamma z - beta)``."""
    far = (LARGE + abs(beta)) / gamma
    near = z.clamp(max=far).mul_(gamma).sub_(beta)
    loss = softplus_with_derivative(near, derivative)
    return z.sub_(far).relu_().add_(loss, alpha=1 / gamma)


@CLASSIFICATION.register("focal_star")
class FocalStarLoss(ClassificationLoss):
    """`focal_star_loss` as a module.

    Args:
        alpha: See `focal_star_loss`.
        gamma: See `focal_star_loss`.
        beta: See `focal_star_loss`.
        label_smoothing: See `focal_star_loss`.
        class_weight: See `focal_star_loss`.
        ignore_index: See `focal_star_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> FocalStarLoss()(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
        tensor(0.0800)
    """

    function = staticmethod(focal_star_loss)
    alpha: float | Tensor | None

    def __init__(
        self,
        *,
        alpha: Fraction | PerClass | None = None,
        gamma: Positive = 2.0,
        beta: float = 1.0,
        label_smoothing: Fraction = 0.0,
        class_weight: PerClass | None = None,
        ignore_index: int = -1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_weight, ignore_index, reduction)
        self.label_smoothing = label_smoothing
        self.keep_per_class("alpha", alpha, highest=1)
        self.gamma = gamma
        self.beta = beta
