"""Online hard example mining: the anchors of the largest loss, positive or background."""

from typing import ClassVar

import torch
from torch import Tensor

from detloss.matchers import Matches
from detloss.registry import SAMPLERS, Fraction, PositiveInt
from detloss.samplers.base import Sampler, keep_smallest, leave_out


@SAMPLERS.register("ohem")
class OHEMSampler(Sampler):
    """Keeps the `size` anchors of an image that have the largest loss.

    With a share of positives, the hardest positives are taken first, up to that share, and the
    hardest negatives fill up. Of equal losses the first is kept. Anchors that overlap are not
    thinned out by non-maximum suppression, as the paper does with its regions.

    Args:
        size: Anchors kept at most.
        positive_fraction: Largest share of positives among them, in [0, 1], rounded down;
            None for as many as are among the hardest anchors. 0.25 in mmdetection's Faster R-CNN.

    Example:
        >>> positive = torch.tensor([True, True, False, False])
        >>> matches = Matches(torch.zeros(4, dtype=torch.long), positive, torch.zeros(4).bool())
        >>> loss = torch.tensor([3.0, 2.0, 1.0, 4.0])
        >>> OHEMSampler(size=2)(matches, loss).ignored
        tensor([False,  True,  True, False])
        >>> OHEMSampler(size=2, positive_fraction=0)(matches, loss).ignored
        tensor([ True,  True, False, False])

    Reference:
        Shrivastava et al., "Training Region-based Object Detectors with Online Hard Example
        Mining", CVPR 2016, arXiv:1604.03540, section 4.
    """

    needs_class_loss: ClassVar[bool] = True

    def __init__(
        self, *, size: PositiveInt = 512, positive_fraction: Fraction | None = None
    ) -> None:
        super().__init__()
        self.size = size
        self.positive_fraction = positive_fraction

    @torch.no_grad()
    def forward(self, matches: Matches, class_loss: Tensor | None = None) -> Matches:
        """The matches with the easy anchors ignored; see `Sampler.forward`.

        Raises:
            ValueError: If the loss is missing or has another shape than (A,).
        """
        easiness = -loss_of_anchors(matches, class_loss)
        if self.positive_fraction is None:
            kept = keep_smallest(matches.positive | matches.negative, easiness, self.size)
        else:
            most = int(self.size * self.positive_fraction)
            positive = keep_smallest(matches.positive, easiness, most)
            negative = keep_smallest(matches.negative, easiness, self.size - positive.sum())
            kept = positive | negative
        return leave_out(matches, ~(kept | matches.ignored))


def loss_of_anchors(matches: Matches, class_loss: Tensor | None) -> Tensor:
    """`class_loss`; raises ValueError unless it is one value for each of the A anchors."""
    if class_loss is None or class_loss.shape != matches.positive.shape:
        got = None if class_loss is None else tuple(class_loss.shape)
        raise ValueError(f"class_loss must have shape {tuple(matches.positive.shape)}, got {got}")
    return class_loss
