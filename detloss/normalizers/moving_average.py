"""The loss of a batch over a moving average of the positive anchors."""

import torch
from torch import Tensor

from detloss.buffers import KeptBuffers
from detloss.normalizers.base import Normalizer, TermRows
from detloss.registry import NORMALIZERS, Fraction, Positive


@NORMALIZERS.register("moving_average")
class MovingAverageNormalizer(Normalizer, KeptBuffers):
    """Divides by an exponential moving average of the positive anchors of the batches.

    ``n <- m n + (1 - m) max(positives, 1)``, in every call in training mode; in evaluation mode n
    stays. A batch with few positives then does not count more than one with many. n is a buffer:
    saved and restored with the criterion's ``state_dict``, kept by a checkpoint that has none, and
    in float32 whatever it is moved to. Terms that share the normalizer move it once. A call with
    ``normalizer=`` does not move it, nor does `DetectorLoss.match`; see `move` for micro-batches.

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

    has_memory = True
    average: Tensor

    def __init__(
        self, *, momentum: Fraction = 0.9, initial: Positive = 100.0, sync: bool = False
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.initial = initial
        self.sync = sync
        self.keep_buffer("average", initial, persistent=True)

    def move(self, positives: Tensor | float) -> Tensor:
        """Moves n by a step with so many positives, in training mode, and returns it.

        It is for gradient accumulation: the criterion moves n in every call in which it divides by
        it, and a number given as ``normalizer=`` leaves it as it is. So move it once, by what
        `DetectorLoss.match` finds in all micro-batches of a step, and give n to each.

        Args:
            positives: The positives of the step, a number or 0-d; of all ranks with `sync`, and
                what is divided by is then n over the number of ranks.

        Example:
            >>> normalizer = MovingAverageNormalizer(momentum=0.5)
            >>> normalizer.move(20)
            tensor(60.)
        """
        self.check_filled(torch.as_tensor(positives))
        if self.training:
            positives = torch.as_tensor(
                positives, dtype=self.average.dtype, device=self.average.device
            )
            with torch.no_grad():
                self.average.lerp_(positives.clamp(min=1), 1 - self.momentum)
        return self.average.clone()

    def local(self, rows: TermRows) -> Tensor:
        """See `Normalizer.local`."""
        return rows.positive.sum().float()[None]

    def divisor(self, total: Tensor, rows: TermRows, ranks: int) -> Tensor:
        """See `Normalizer.divisor`."""
        return self.move(total[0]).to(total.dtype) / ranks
