"""The loss of a batch over a moving average of the positive anchors."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from detloss.normalizers.base import Normalizer, TermRows
from detloss.registry import NORMALIZERS, Fraction, Positive


@NORMALIZERS.register("moving_average")
class MovingAverageNormalizer(Normalizer):
    """Divides by an exponential moving average of the positive anchors of the batches.

    ``n <- m n + (1 - m) max(positives, 1)``, in every call in training mode; in evaluation mode n
    stays. A batch with few positives then does not count more than one with many. n is a buffer:
    saved and restored with the criterion's ``state_dict``, kept by a checkpoint that has none, and
    in float32 whatever it is moved to.

    Args:
        momentum: m in [0, 1], how much of n a step keeps.
        initial: n before the first step, a number of positives that is not too small, > 0.
        sync: Whether the batches are those of all ranks, see `Normalizer`; then n is too.

    Example:
        >>> MovingAverageNormalizer(momentum=0.5).average
        tensor(100.)

    Reference:
        detectron2, ``detectron2.modeling.RetinaNet``, whose loss normalizer has momentum 0.9 and
        starts at 100.
    """

    average: Tensor

    def __init__(
        self, *, momentum: Fraction = 0.9, initial: Positive = 100.0, sync: bool = False
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.initial = initial
        self.sync = sync
        self.register_buffer("average", torch.tensor(float(initial), dtype=torch.float32))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What ``.to`` and the like do: n moves, but not into a type that is too coarse for it."""
        average = self.average
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.average.dtype != average.dtype:
            self.average = average.to(self.average.device)
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *others: Any, **more: Any
    ) -> None:
        """What ``load_state_dict`` does: n stays where a checkpoint has none, being older."""
        state_dict.setdefault(f"{prefix}average", self.average)
        super()._load_from_state_dict(state_dict, prefix, *others, **more)

    def local(self, rows: TermRows) -> Tensor:
        """See `Normalizer.local`."""
        return rows.positive.sum().float()[None]

    def divisor(self, total: Tensor, rows: TermRows, ranks: int) -> Tensor:
        """See `Normalizer.divisor`."""
        if self.training:
            self.average.lerp_(total[0].clamp(min=1).to(self.average.dtype), 1 - self.momentum)
        return self.average / ranks
