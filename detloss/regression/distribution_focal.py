"""Distribution focal loss: a distance as a distribution over bins."""

from typing import ClassVar

import torch
from torch import Tensor

from detloss.kernels import Reduction, Space, bins_loss
from detloss.kernels.elementary import exponential_
from detloss.registry import REGRESSION
from detloss.regression.base import BoxLoss


def distribution_focal_loss(
    pred: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Cross-entropy of a box's distances to the two bins around each, the mean of its four sides.

    With S the softmax of a side's logits and y its distance, between the bins i and i + 1:
    ``L = -((i + 1 - y) ln S_i + (y - i) ln S_{i+1})``. It is least where S is ``i + 1 - y`` at i
    and ``y - i`` at i + 1, whose expectation is y. Gradient ``(S - that) / 4`` for each logit.

    It keeps the distribution narrow around the truth. The expectation alone, which is what a loss
    on decoded boxes sees, leaves its shape open. So it comes beside such a loss.

    Args:
        pred: Logits (..., 4, bins), floating point: a row of bins for each side of a box.
        target: Distances (..., 4), measured in bins, in [0, bins - 1]. One below counts as 0, one
            above as ``bins - 1``.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss >= 0. Its minimum, the entropy of the two shares, is 0 only for whole distances, and
        ``ln 2`` half-way between two bins. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If a tensor is not floating point.
        ValueError: If the last axes of `pred` are not 4 and at least 2 bins, or `target` has not
            one distance a side.

    Example:
        >>> logits = torch.zeros(1, 4, 8)  # undecided: each of 8 bins has 1/8
        >>> distribution_focal_loss(logits, torch.tensor([[0.0, 2.5, 6.9, 7.0]]))  # ln 8
        tensor([2.0794])

    Reference:
        Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388, equation 6.
    """
    return bins_loss(
        _distribution_focal, pred, target, fused=_fused, weight=weight, reduction=reduction
    )


def _distribution_focal(logits: Tensor, target: Tensor) -> Tensor:
    bins, shares = _two_bins(target, logits.shape[-1])
    return -(shares * logits.log_softmax(-1).gather(-1, bins)).sum((-2, -1))


def _fused(logits: Tensor, gradient: Tensor | None, target: Tensor) -> Tensor:
    """`_distribution_focal`, and its gradient (N, 4, bins): a quarter of the softmax, less the
    shares.
    """
    bins, shares = _two_bins(target, logits.shape[-1])
    log_p = torch.log_softmax(logits, -1, out=gradient)
    loss = log_p.gather(-1, bins).mul_(shares).sum((-2, -1)).neg_()
    if gradient is not None:
        exponential_(gradient).div_(4).scatter_add_(-1, bins, -shares)
    return loss


def _two_bins(target: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The bins on either side of each distance, and their shares of the row, both (..., 4, 2).

    The shares of a side sum to 1/4: so the loss is a sum, and overflows no sooner than a logit.
    """
    target = target.clamp(0, count - 1)
    left = target.floor().long().clamp(0, count - 2)  # a NaN is no index; its shares are NaN
    right_share = target - left
    bins = torch.stack([left, left + 1], dim=-1)
    return bins, torch.stack([1 - right_share, right_share], dim=-1) / 4


@REGRESSION.register("distribution_focal")
class DistributionFocalLoss(BoxLoss):
    """`distribution_focal_loss` as a module.

    Args:
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> round(DistributionFocalLoss()(torch.zeros(3, 4, 16), torch.ones(3, 4)).item(), 4)
        2.7726
    """

    function = staticmethod(distribution_focal_loss)
    space: ClassVar[Space] = "bins"

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
