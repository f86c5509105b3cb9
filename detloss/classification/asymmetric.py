"""Asymmetric loss: focal loss that treats "yes" and "no" differently, and forgets a sure "no"."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from detloss.classification.base import ClassificationLoss
from detloss.kernels import Reduction, binary_loss
from detloss.kernels.elementary import modulated_softplus, modulated_softplus_with_derivative
from detloss.options import check_fraction, check_non_negative
from detloss.registry import CLASSIFICATION, Fraction, NonNegative, PerClass


def asymmetric_loss(
    logits: Tensor,
    target: Tensor,
    *,
    quality: Tensor | None = None,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    clip: float = 0.05,
    detach: bool = False,
    label_smoothing: float = 0.0,
    class_weight: Sequence[float] | Tensor | None = None,
    ignore_index: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Asymmetric loss (ASL) of an independent yes or no for each class.

    ``L = -y (1 - p)^gamma_positive ln p - (1 - y) p_m^gamma_negative ln(1 - p_m)``, ``p =
    sigmoid(x)``, ``p_m = max(p - clip, 0)``. A "no" of a probability up to `clip` costs nothing and
    learns nothing; from there on the gradient is ``p_m^g (1 + g (1 - p_m) l / p_m) p (1 - p) / (1 -
    p_m)`` with ``g = gamma_negative`` and ``l = -ln(1 - p_m)``. At clip 0 and one gamma it is
    `sigmoid_focal_loss` without alpha.

    It is good where each example says yes to few of many classes: easy negatives go, and positives
    keep all of their gradient. The same holds for wrong labels: a "no" at p near 1 pulls no more,
    as a forgotten "yes" would. An answer that is truly wrong there is not corrected either.

    Args:
        logits: Scores (..., C), floating point.
        target: Class indices (...,): 0..C-1 says yes to that class, C (``num_classes``) is
            background, yes to none. Or the label y of each class (..., C), in [0, 1].
            The loss is linear in it, as mixup and label smoothing mean it.
        quality: (...,) in [0, 1], beside class indices: the label that the row's class gets instead
            of 1, such as the IoU of its box. It carries no gradient, and is not read in a row
            without a class.
        gamma_positive: How much less a "yes" counts the nearer p is to 1, >= 0. The authors' code
            has another default, 1.
        gamma_negative: How much less a "no" counts the nearer p is to `clip`, >= 0.
        clip: The probability m, in [0, 1], up to which a "no" costs nothing.
        detach: Whether the power carries no gradient. The value is the same. The paper's analysis
            differentiates it, as do the optimized class of the authors' code and timm; the plain
            class of the authors' code does not.
        label_smoothing: e in [0, 1]: a label y becomes ``y (1 - e) + e / 2``.
        class_weight: (C,) factor of each class; a mean still divides by the plain count.
        ignore_index: The class index of rows to leave out: loss and gradient exactly 0.
        weight: (...,) or (..., C) factors; 0 silences the gradient exactly.
        reduction: "none" -> (..., C), "sum", "image" -> (B,) sums over all axes but the first, or
            "mean" over the elements of rows not ignored.

    Returns:
        Loss >= 0, finite with a finite gradient for every finite logit; that of a "no" is below
        ``-ln clip``. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If the logits are not floating point, or class indices not integer.
        ValueError: If shapes do not fit or an option is out of range.

    Note:
        On a CPU a class index outside 0..C other than `ignore_index` is an error. Compiled or on a
        GPU it is not looked at, since that would stall the GPU, and counts as background.

    Example:
        At logit 0 a "yes" costs ln 2, a "no" ``-0.45^4 ln 0.55``. At -3, p is 0.047.

        >>> import torch
        >>> asymmetric_loss(torch.tensor([[0.0, 0.0, -3.0]]), torch.tensor([0]))
        tensor([[0.6931, 0.0245, 0.0000]])

    Reference:
        Ridnik et al., "Asymmetric Loss For Multi-Label Classification", ICCV 2021,
        arXiv:2009.14119.
    """
    check_non_negative("gamma_positive", gamma_positive)
    check_non_negative("gamma_negative", gamma_negative)
    check_fraction("clip", clip)
    negative, with_derivative = _modulated(gamma_negative, detach)
    if clip > 0:
        negative = partial(_clipped, clip=clip, gamma=gamma_negative, detach=detach)
        with_derivative = partial(
            _clipped_with_derivative, clip=clip, gamma=gamma_negative, detach=detach
        )
    return binary_loss(
        negative,
        logits,
        target,
        quality=quality,
        with_derivative=with_derivative,
        positive=_modulated(gamma_positive, detach),
        label_smoothing=label_smoothing,
        class_weight=class_weight,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def _modulated(gamma: float, detach: bool) -> tuple[partial[Tensor], partial[Tensor]]:
    """`modulated_softplus`, plain and with its derivative."""
    return (
        partial(modulated_softplus, gamma=gamma, detach=detach),
        partial(modulated_softplus_with_derivative, gamma=gamma, detach=detach),
    )


def _clipped(z: Tensor, clip: float, gamma: float, detach: bool) -> Tensor:
    """``p_m^gamma l``, ``l = -ln(1 - p_m)``, of a negative whose probability is above `clip`, or 0.

    Of a p near 1 it is ``1 - p`` and ``1 - p_m = (1 - p) + clip`` that keep their digits, and the
    gradient of ``1 - p``.
    """
    above = z > 0
    smaller = torch.where(above, -z, z).sigmoid()
    p_m = (torch.where(above, 1 - smaller, smaller) - clip).relu()
    near_1, far = (smaller + clip).clamp(max=1), torch.where(above, 0, p_m)
    loss = -torch.where(above, near_1.log(), torch.log1p(-far))
    modulation = p_m.pow(gamma)
    return (modulation.detach() if detach else modulation) * loss


def _clipped_with_derivative(
    z: Tensor, derivative: Tensor | None, clip: float, gamma: float, detach: bool
) -> Tensor:
    """The same with its derivative ``p_m^gamma (1 + gamma (1 - p_m) l / p_m) p (1 - p) / (1 -
    p_m)``, without the sum's second term if `detach`.
    """
    p, rest = z.sigmoid(), (-z).sigmoid()
    p_m, rest_m = (p - clip).relu_(), (rest + clip).clamp_(max=1)
    loss = torch.where(z > 0, -rest_m.log(), -torch.log1p(-p_m))
    modulation = p_m.pow(gamma)
    if derivative is not None:
        torch.div(p.mul_(rest), rest_m, out=derivative)
        if not detach:
            derivative.mul_((loss / p_m).mul_(rest_m).mul_(gamma).add_(1))
        derivative.mul_(modulation).masked_fill_(p_m == 0, 0)  # also a 0 / 0
    return loss.mul_(modulation)


@CLASSIFICATION.register("asymmetric")
class AsymmetricLoss(ClassificationLoss):
    """`asymmetric_loss` as a module.

    Args:
        gamma_positive: See `asymmetric_loss`.
        gamma_negative: See `asymmetric_loss`.
        clip: See `asymmetric_loss`.
        detach: See `asymmetric_loss`.
        label_smoothing: See `asymmetric_loss`.
        class_weight: See `asymmetric_loss`.
        ignore_index: See `asymmetric_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> AsymmetricLoss()(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
        tensor(0.0757)
    """

    function = staticmethod(asymmetric_loss)

    def __init__(
        self,
        *,
        gamma_positive: NonNegative = 0.0,
        gamma_negative: NonNegative = 4.0,
        clip: Fraction = 0.05,
        detach: bool = False,
        label_smoothing: Fraction = 0.0,
        class_weight: PerClass | None = None,
        ignore_index: int = -1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_weight, ignore_index, reduction)
        self.label_smoothing = label_smoothing
        self.gamma_positive = gamma_positive
        self.gamma_negative = gamma_negative
        self.clip = clip
        self.detach = detach
