"""Gaussian focal loss: focal loss of a heat map, forgiving around the centres of objects."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from detloss.classification.base import ClassificationLoss
from detloss.kernels import Reduction, binary_loss
from detloss.kernels.elementary import modulated_softplus, modulated_softplus_with_derivative
from detloss.options import check_non_negative
from detloss.registry import CLASSIFICATION, NonNegative, PerClass


def gaussian_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    quality: Tensor | None = None,
    alpha: float = 2.0,
    beta: float = 4.0,
    class_weight: Sequence[float] | Tensor | None = None,
    ignore_index: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Focal loss of a heat map, with an independent answer for each class.

    ``L = -(1 - p)^alpha ln p`` where the heat y is 1, else ``L = -(1 - y)^beta p^alpha ln(1 - p)``,
    ``p = sigmoid(x)``. Only a heat of exactly 1, the centre of an object, is a "yes". Every other
    is a "no" that counts less the nearer it lies to a centre: a peak beside the right place still
    gives a good box. p is not clamped, so that the gradient of a surely wrong answer stays 1.

    Args:
        logits: Scores (..., C), floating point.
        target: Class indices (...,): 0..C-1 says yes to that class, C (``num_classes``) is
            background, yes to none. Or the label y of each class (..., C), in [0, 1].
            This is the heat of a place.
        quality: (...,) in [0, 1], beside class indices: the label that the row's class gets instead
            of 1, such as the IoU of its box. It carries no gradient, and is not read in a row
            without a class. Other classes have a heat of 0.
        alpha: How much less an example counts the nearer its answer is to the truth, >= 0.
        beta: An exponent, >= 0. How much less a "no" counts the higher its heat is.
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
        ValueError: If shapes do not fit, a quality stands beside a dense target, or alpha or beta
            is negative.

    Note:
        The paper divides the sum by the number of objects. Label smoothing would leave no heat of
        1, and with it no "yes". On a CPU a class index outside 0..C other than `ignore_index` is an
        error. Compiled or on a GPU it is not looked at, since that would stall the GPU, and counts
        as background.

    Example:
        At logit 0 a centre and a far cell cost ``0.25 ln 2``, a heat of 1/2 a sixteenth of it.

        >>> import torch
        >>> gaussian_focal_loss(torch.zeros(1, 3), torch.tensor([[1.0, 0.5, 0.0]]))
        tensor([[0.1733, 0.0108, 0.1733]])

    Reference:
        Law and Deng, "CornerNet: Detecting Objects as Paired Keypoints", ECCV 2018,
        arXiv:1808.01244, equation 1; Zhou et al., "Objects as Points" (CenterNet), 2019,
        arXiv:1904.07850, equation 1.
    """
    check_non_negative("alpha", alpha)
    check_non_negative("beta", beta)
    return binary_loss(
        partial(modulated_softplus, gamma=alpha),
        logits,
        target,
        quality=quality,
        with_derivative=partial(modulated_softplus_with_derivative, gamma=alpha),
        of_label=partial(_of_heat, alpha=alpha, beta=beta),
        class_weight=class_weight,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def _of_heat(x: Tensor, heat: Tensor, alpha: float, beta: float) -> tuple[Tensor, Tensor]:
    """``f p^alpha L`` and ``s f (alpha (1 - p) p^alpha L + p^alpha p)``, ``L = -ln(1 - p)``.

    A "yes" is a "no" to -x: there p is the sigmoid of -x, f is 1 and s is -1. Elsewhere f is ``(1 -
    y)^beta`` and s is 1.
    """
    is_centre = heat == 1
    z = torch.where(is_centre, -x, x)
    factor = torch.where(is_centre, 1, 1 - heat).pow(beta)
    p, loss = z.sigmoid(), modulated_softplus(z, alpha)
    slope = factor * (alpha * (1 - p) * loss + p.pow(alpha + 1))
    return factor * loss, torch.where(is_centre, -slope, slope)


@CLASSIFICATION.register("gaussian_focal")
class GaussianFocalLoss(ClassificationLoss):
    """`gaussian_focal_loss` as a module.

    Args:
        alpha: See `gaussian_focal_loss`.
        beta: See `gaussian_focal_loss`.
        class_weight: See `gaussian_focal_loss`.
        ignore_index: See `gaussian_focal_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> GaussianFocalLoss()(torch.tensor([[0.0, 2.0]]), torch.tensor([[0.5, 1.0]]))
        tensor(0.0063)
    """

    function = staticmethod(gaussian_focal_loss)

    def __init__(
        self,
        *,
        alpha: NonNegative = 2.0,
        beta: NonNegative = 4.0,
        class_weight: PerClass | None = None,
        ignore_index: int = -1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_weight, ignore_index, reduction)
        self.alpha = alpha
        self.beta = beta
