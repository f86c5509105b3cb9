"""Hard negative mining: all positives, and the negatives of the largest loss."""

import math
from typing import Annotated, ClassVar

from annotated_types import Ge
from torch import Tensor

from detloss.registry import SAMPLERS, NonNegative
from detloss.samplers.base import Sampler, keep_smallest

UNIT = 10**12
"""Of the decimals of a ratio; times nine million positives it still is an int64."""

MOST = 1e12
"""A ratio beyond it asks for more negatives than any image has."""


@SAMPLERS.register("hard_negative")
class HardNegativeSampler(Sampler):
    """Keeps `ratio` negatives for each positive of an image, those of the largest loss.

    An image without positives keeps `min_negatives` negatives: with the default 0 nothing is
    learned from it, as in SSD; set it to learn from empty images too. Of equal losses the first
    is kept.

    Args:
        ratio: Negatives for each positive, >= 0; the product is rounded down.
        min_negatives: Negatives kept at least in every image that has them, >= 0.

    Example:
        >>> import torch
        >>> from detloss.matchers import Matches
        >>> positive = torch.tensor([True, False, False, False])
        >>> matches = Matches(torch.zeros(4, dtype=torch.long), positive, torch.zeros(4).bool())
        >>> HardNegativeSampler(ratio=2)(matches, torch.tensor([9.0, 1.0, 3.0, 2.0])).negative
        tensor([False, False,  True,  True])

    Reference:
        Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, arXiv:1512.02325, section
        2.2: at most 3:1.
    """

    needs_class_loss: ClassVar[bool] = True

    def __init__(
        self, *, ratio: NonNegative = 3.0, min_negatives: Annotated[int, Ge(0)] = 0
    ) -> None:
        super().__init__()
        self.ratio = ratio
        self.min_negatives = min_negatives

    def left_out(self, positive: Tensor, negative: Tensor, class_loss: Tensor | None) -> Tensor:
        """The easy negatives; see `Sampler.left_out`."""
        assert class_loss is not None
        count = rounded_down(positive.sum(-1, keepdim=True), self.ratio)
        count = count.clamp(min=self.min_negatives)
        return negative & ~keep_smallest(negative, -class_loss, count)


def rounded_down(count: Tensor, ratio: float) -> Tensor:
    """``count * ratio`` of an integer tensor, rounded down, in integers.

    So 50 x 1.06 is 53, which it is not in float32, and not every device has a float64. A ratio is
    taken to 12 decimals, rounded up for the sake of a third: 3 x 0.333... is 1.

    Example:
        >>> import torch
        >>> rounded_down(torch.tensor([50, 3, 3]), 1.06), rounded_down(torch.tensor(3), 1 / 3)
        (tensor([53,  3,  3]), tensor(1))
    """
    ratio = min(ratio, MOST)
    whole = int(ratio)
    decimals = math.ceil((ratio - whole) * UNIT)
    return count * whole + count * decimals // UNIT
