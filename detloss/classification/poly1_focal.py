"""Poly-1 focal loss: focal loss with another weight of the first power of its series."""

from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from detloss.classification.base import ClassificationLoss
from detloss.classification.poly1 import check_epsilon, plus_first_power
from detloss.kernels import Reduction, binary_loss, softplus
from detloss.kernels.elementary import LARGE, sigmoid_power_, softplus_
from detloss.options import check_choice, check_fraction, check_non_negative
from detloss.registry import CLASSIFICATION, AtLeastMinusOne, Fraction, NonNegative, PerClass

Convention = Literal["paper", "polyloss_pytorch"]
CONVENTIONS = get_args(Convention)


def poly1_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    quality: Tensor | None = None,
    epsilon: float = 1.0,
    gamma: float = 2.0,
    alpha: float | Sequence[float] | Tensor | None = 0.25,
    convention: Convention = "paper",
    label_smoothing: float = 0.0,
    class_weight: Sequence[float] | Tensor | None = None,
    ignore_index: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Poly-1 focal loss of an independent yes or no for each class.

    ``L = alpha_t (w^gamma l + epsilon w^(gamma + 1))``, w the probability of the wrong answer, ``1
    - sigmoid(x)`` for a "yes" and ``sigmoid(x)`` for a "no", ``l = -ln(1 - w)``, and ``alpha_t``
    alpha or 1 - alpha. As ``l = w + w^2 / 2 + ...``, the first power of focal loss's series counts
    ``1 + epsilon``. At epsilon 0 it is `sigmoid_focal_loss`, at gamma 0 the Poly-1 loss of binary
    cross-entropy. The gradient by the logit of the wrong answer is ``alpha_t w^gamma (gamma (1 -
    w) (l + epsilon w) + w (1 + epsilon (1 - w)))``.

    Below 0 it lets go of what is answered right even sooner than focal loss; the paper has it there
    in detectors. It costs what focal loss does, and a number to be searched for.

    Args:
        logits: Scores (..., C), floating point. Start training with their bias at `prior_bias`,
            or the background drowns the first steps.
        target: Class indices (...,): 0..C-1 says yes to that class, C (``num_classes``) is
            background, yes to none. Or the label y of each class (..., C), in [0, 1].
            The loss is linear in it, as mixup and label smoothing mean it.
        quality: (...,) in [0, 1], beside class indices: the label that the row's class gets instead
            of 1, such as the IoU of its box. It carries no gradient, and is not read in a row
            without a class.
        epsilon: What is added to the weight 1 of the first power, >= -1.
        gamma: How much less an example counts the nearer its answer is to the truth. It is at least
            0.
        alpha: Weight of the positive term in [0, 1], 1 - alpha of the negative: a float, (C,)
            values, one per class, or None for 1 and 1.
        convention: What alpha weighs. "paper": all. "polyloss_pytorch": of that implementation and
            its copies, the focal loss without ``epsilon w^(gamma + 1)``, so that with an epsilon
            below ``-alpha_t`` the loss can be below 0 and grow with a right answer; one alpha for
            all classes.
        label_smoothing: e in [0, 1]: a label y becomes ``y (1 - e) + e / 2``.
        class_weight: (C,) factor of each class; a mean still divides by the plain count.
        ignore_index: The class index of rows to leave out: loss and gradient exactly 0.
        weight: (...,) or (..., C) factors; 0 silences the gradient exactly.
        reduction: "none" -> (..., C), "sum", "image" -> (B,) sums over all axes but the first, or
            "mean" over the elements of rows not ignored.

    Returns:
        Loss, >= 0 by the paper's convention, finite with a finite gradient for every finite logit.
        float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If the logits are not floating point, class indices not integer, or alpha is not
            a number where the convention has one.
        ValueError: If shapes do not fit or an option is out of range.

    Note:
        On a CPU a class index outside 0..C other than `ignore_index` is an error. Compiled or on a
        GPU it is not looked at, since that would stall the GPU, and counts as background.

    Example:
        At logit 0, ``w^2 l + w^3 = (ln 2) / 4 + 1/8``: a quarter of it for the positive, three for
        the rest.

        >>> import torch
        >>> poly1_focal_loss(torch.zeros(1, 2), torch.tensor([1]))
        tensor([[0.2237, 0.0746]])
        >>> poly1_focal_loss(torch.zeros(1, 2), torch.tensor([1]), epsilon=-1.0, alpha=None)
        tensor([[0.0483, 0.0483]])

    Reference:
        Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss
        Functions", ICLR 2022, arXiv:2204.12511.
    """
    check_epsilon(epsilon)
    check_non_negative("gamma", gamma)
    check_choice("convention", convention, CONVENTIONS)
    loss, with_derivative = _of_share(1.0, gamma, epsilon)
    positive = None
    if alpha is not None and convention == "polyloss_pytorch":
        of_yes, alpha = one_alpha(alpha), None
        loss, with_derivative = _of_share(1 - of_yes, gamma, epsilon)
        positive = _of_share(of_yes, gamma, epsilon)
    return binary_loss(
        loss,
        logits,
        target,
        quality=quality,
        with_derivative=with_derivative,
        positive=positive,
        label_smoothing=label_smoothing,
        alpha=alpha,
        class_weight=class_weight,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def one_alpha(alpha: object) -> float:
    """That alpha, refused unless it is a number in [0, 1].

    Raises:
        TypeError: If it is no number.
        ValueError: If it is out of range.
    """
    if not isinstance(alpha, (int, float)):
        raise TypeError(f"alpha must be a number by the convention 'polyloss_pytorch', got {alpha}")
    check_fraction("alpha", alpha)
    return alpha


def _of_share(
    share: float, gamma: float, epsilon: float
) -> tuple[partial[Tensor], partial[Tensor]]:
    """The loss of a negative whose cross-entropy counts `share`, plain and with its derivative."""
    return (
        partial(_negative, share=share, gamma=gamma, epsilon=epsilon),
        partial(_with_derivative, share=share, gamma=gamma, epsilon=epsilon),
    )


def _negative(z: Tensor, share: float, gamma: float, epsilon: float) -> Tensor:
    """``p^gamma (share L + epsilon p)``, ``p = sigmoid(z)``, ``L = -ln(1 - p)``, of a negative.

    As in `modulated_softplus`, the power is an exponential of ``ln p``, and beyond LARGE p is 1.
    """
    moderate = z.clamp(torch.finfo(z.dtype).min, LARGE)
    loss = softplus(moderate)
    modulation = (gamma * (moderate - loss)).exp()
    loss = torch.where(z >= LARGE, z, loss)
    return modulation * plus_first_power(loss, moderate.sigmoid(), epsilon, share)


def _with_derivative(
    z: Tensor, derivative: Tensor | None, share: float, gamma: float, epsilon: float
) -> Tensor:
    """The same, P, with its derivative ``p^gamma (gamma (1 - p) P + p (share + epsilon (1 - p)))``,
    where P is without its power of p.
    """
    p = z.sigmoid()
    loss = plus_first_power(softplus_(z), p, epsilon, share)
    if derivative is not None:
        torch.sub(1.0, p, out=derivative)
        derivative.mul_(loss).mul_(gamma)
        derivative.addcmul_(p, (share + epsilon) - epsilon * p)
    modulation = sigmoid_power_(p, gamma)
    if derivative is not None:
        derivative.mul_(modulation)
    return loss.mul_(modulation)


@CLASSIFICATION.register("poly1_focal")
class Poly1FocalLoss(ClassificationLoss):
    """`poly1_focal_loss` as a module.

    Args:
        epsilon: See `poly1_focal_loss`.
        gamma: See `poly1_focal_loss`.
        alpha: See `poly1_focal_loss`.
        convention: See `poly1_focal_loss`.
        label_smoothing: See `poly1_focal_loss`.
        class_weight: See `poly1_focal_loss`.
        ignore_index: See `poly1_focal_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> import torch
        >>> Poly1FocalLoss()(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
        tensor(0.1123)
    """

    function = staticmethod(poly1_focal_loss)
    alpha: float | Tensor | None

    def __init__(
        self,
        *,
        epsilon: AtLeastMinusOne = 1.0,
        gamma: NonNegative = 2.0,
        alpha: Fraction | PerClass | None = 0.25,
        convention: Convention = "paper",
        label_smoothing: Fraction = 0.0,
        class_weight: PerClass | None = None,
        ignore_index: int = -1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_weight, ignore_index, reduction)
        self.label_smoothing = label_smoothing
        self.epsilon = epsilon
        self.gamma = gamma
        if convention == "polyloss_pytorch" and alpha is not None:
            one_alpha(alpha)
        self.keep_per_class("alpha", alpha, highest=1)
        self.convention = convention
