"""Online hard example mining: the anchors of the largest loss, positive or background."""

from typing import ClassVar

from torch import Tensor

from detloss.registry import SAMPLERS, Fraction, PositiveInt
from detloss.samplers.base import Sampler, keep_smallest


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
        >>> import torch
        >>> from detloss.matchers import Matches
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

    def left_out(self, positive: Tensor, negative: Tensor, class_loss: Tensor | None) -> Tensor:
        """The easy anchors; see `Sampler.left_out`."""
        assert class_loss is not None
        if self.positive_fraction is None:
            every = positive | negative
            return every & ~keep_smallest(every, -class_loss, self.size)
        most = int(self.size * self.positive_fraction)
        hard = keep_smallest(positive, -class_loss, most)
        rest = self.size - hard.sum(-1, keepdim=True)
        return (positive & ~hard) | (negative & ~keep_smallest(negative, -class_loss, rest))
