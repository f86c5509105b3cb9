"""Wise-IoU loss: IoU times the distance of the centres, and a focus that follows the training."""

from functools import partial
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch import distributed as dist

from detloss.boxes.lengths import Lengths, least_side, squared_length
from detloss.buffers import KeptBuffers
from detloss.kernels import Reduction, check_box_rows
from detloss.kernels.box_pairs import BoxPairs
from detloss.options import check_choice
from detloss.registry import REGRESSION, Fraction, Positive
from detloss.regression.base import BoxLoss, Space
from detloss.regression.family import Composition, family_loss
from detloss.regression.iou import IOU
from detloss.tensors import widen

Version = Literal[1, 2, 3]
VERSIONS = get_args(Version)


def wise_iou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    version: Version = 1,
    mean: Tensor | float = 1.0,
    alpha: float = 1.9,
    delta: float = 3.0,
    eps: float = 1e-7,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Wise-IoU loss of each pair of boxes, ``r exp(d^2 / c^2) (1 - IoU)``.

    d is the distance of the two centres and c the diagonal of the smallest box around both, which
    is constant for the gradient, so that no box grows to make it larger. The factor r is constant,
    too, with ``b = (1 - IoU) / mean``, how much worse than usual a box is:

    - version 1: ``r = 1``;
    - version 2: ``r = sqrt(b)``, so that good boxes count less as training goes on;
    - version 3: ``r = b / (delta alpha^(b - delta))``, so that boxes much worse than usual, which
      may be mislabelled, count less, too. It is 1 at ``b = delta`` and largest at ``b = 1 / ln
      alpha``.

    It is good where labels are of mixed quality. It costs autograd, about three times as many
    launches as a GIoU, and a mean that has to be kept.

    Args:
        pred: Predicted boxes (..., 4) as (x1, y1, x2, y2), floating point.
        target: Ground-truth boxes of the same shape, in the unit of `pred`: pixels or fractions
            of the image. The loss does not change with the unit.
        version: 1, 2 or 3.
        mean: What ``1 - IoU`` usually is, > 0, a number or 0-d; the module keeps a running one.
        alpha: The paper's alpha. Of version 3, > 1.
        delta: The b of version 3 whose factor is 1, > 0.
        eps: Square of the least side of a target, in the unit of the boxes: a shorter side counts
            as that long, so that no gradient exceeds ``10 / sqrt(eps)``. Make it smaller where
            objects are: 1e-7 is 0.4 px of a 1280 px image in fractions.
        weight: (...,) factor of each row; 0 silences the row's gradient exactly.
        reduction: "none" -> (...,), "sum" or "mean" (over rows) -> scalar, "image" -> (B,) sums
            over all axes but the first.

    Returns:
        Loss >= 0, of version 1 below e: 0 for identical boxes without a side below sqrt(eps).
        float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: If a box tensor is not floating point.
        ValueError: If the shapes differ, a last axis is not 4 or the version is unknown.

    Note:
        An inverted box (x2 < x1) counts as empty: its loss is at least 1. It has an additional
        gradient that turns it round, see `detloss.boxes.lengths.Lengths`. The authors' later code
        has alpha 1.7 and delta 2.7. In
        copies whose c has a gradient, a box that is far away grows.

    Example:
        >>> pred, target = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]])
        >>> [round(wise_iou_loss(pred, target, version=v, mean=0.5).item(), 4) for v in (1, 2, 3)]
        [0.72, 0.8314, 0.9327]

    Reference:
        Tong et al., "Wise-IoU: Bounding Box Regression Loss with Dynamic Focusing Mechanism", 2023,
        arXiv:2301.10051.
    """
    check_choice("version", version, VERSIONS)
    focus = partial(_focus, version=version, mean=mean, alpha=alpha, delta=delta)
    composition = Composition(IOU, eps, gain=None if version == 1 else focus, factor=_attraction)
    return family_loss(composition, pred, target, weight=weight, reduction=reduction)


def _attraction(pairs: Lengths) -> Tensor:
    """``exp(d^2 / c^2)``, c without a gradient."""
    return torch.exp(squared_length(pairs.offset) / squared_length(pairs.hull_sides).detach())


def _focus(
    pairs: Lengths | BoxPairs,
    version: Version,
    mean: Tensor | float,
    alpha: float,
    delta: float,
) -> Tensor:
    """r, of how much worse than usual a box is."""
    worse = (1 - pairs.iou) / mean
    return worse.sqrt() if version == 2 else worse / (delta * alpha ** (worse - delta))


@REGRESSION.register("wise_iou")
class WiseIoULoss(BoxLoss, KeptBuffers):
    """`wise_iou_loss` as a module, with a running mean of ``1 - IoU``.

    In training mode the mean of version 2 or 3 moves by ``mean <- (1 - momentum) mean + momentum
    l``, l that of the rows whose weight is not 0; rows of which none counts, or not a finite one,
    leave it. In evaluation mode it stays. It is a buffer: saved and restored with the
    ``state_dict``, kept by a checkpoint that has none, and in float32 whatever it is moved to.

    It moves once a step and before it is used: in a call of the module, or in one of a criterion by
    the rows of all its layers. A criterion's call with ``normalizer=`` is one of several in a step:
    its rows are noted, and `DetectorLoss.move` moves the mean by them.

    Args:
        version: See `wise_iou_loss`.
        mean: What the running mean begins with, > 0.
        alpha: See `wise_iou_loss`.
        delta: See `wise_iou_loss`.
        momentum: How much a step moves the mean, in [0, 1]; the authors' is
            ``1 - 0.05^(1 / steps)``, of the steps until a detector stops improving fast.
        sync: Whether l is that of the rows of all ranks. Every rank must then take equally many
            steps.
        eps: See `wise_iou_loss`.
        reduction: "mean", "sum", "image" or "none".

    Example:
        >>> loss = WiseIoULoss(version=3, momentum=0.5)
        >>> _ = loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[0.0, 0, 2, 1]]))  # IoU 1/2
        >>> loss.running_mean
        tensor(0.7500)
    """

    function = staticmethod(wise_iou_loss)
    space: ClassVar[Space] = "boxes"
    own_options: ClassVar[frozenset[str]] = frozenset({"momentum", "sync"})
    running_mean: Tensor

    def __init__(
        self,
        *,
        version: Version = 1,
        mean: Positive = 1.0,
        alpha: Positive = 1.9,
        delta: Positive = 3.0,
        momentum: Fraction = 1e-4,
        sync: bool = False,
        eps: Positive = 1e-7,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        self.version = version
        self.alpha = alpha
        self.delta = delta
        self.momentum = momentum
        self.sync = sync
        self.eps = eps
        self.mean = mean
        self.keep_buffer("running_mean", mean, persistent=True)
        self._noted: Tensor | None = None  # no buffer: DistributedDataParallel would overwrite it

    @property
    def has_memory(self) -> bool:
        """See `Loss.has_memory`."""
        return self.version != 1

    def options(self) -> dict[str, Any]:
        """See `Loss.options`; the mean of this step, which later ones do not change."""
        return {**super().options(), "mean": self.running_mean.clone()}

    @torch.no_grad()
    def observe(self, pred: Tensor, target: Tensor, *, weight: Tensor | None) -> None:
        """See `Loss.observe`: the sum of ``1 - IoU`` of the rows that count, and their number."""
        if not self.training:
            return
        check_box_rows(pred, target, weight)
        pairs = Lengths(widen(pred), widen(target), least_side(self.eps))
        counts = torch.ones_like(pairs.iou) if weight is None else (weight != 0).to(pairs.iou)
        lost = torch.where(counts > 0, 1 - pairs.iou, 0)
        noted = torch.stack([lost.sum(), counts.sum()])
        self._noted = noted if self._noted is None else self._noted + noted

    @torch.no_grad()
    def move(self) -> None:
        """See `Loss.move`."""
        if not self.training:
            return
        noted, self._noted = self._noted, None
        if noted is None:
            noted = self.running_mean.new_zeros(2)
        self.check_filled(noted)
        sums = noted.to(self.running_mean)
        if self.sync and dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
        found = sums[0] / sums[1]  # not a number where no row counts
        self.running_mean.copy_(
            torch.where(
                found.isfinite(), self.running_mean.lerp(found, self.momentum), self.running_mean
            )
        )
