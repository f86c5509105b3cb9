"""Random balanced sampling: a fixed number of anchors, with a share of positives at most."""

import torch
from torch import Tensor

from detloss.registry import SAMPLERS, Fraction, PositiveInt
from detloss.samplers.base import Sampler, keep_smallest


@SAMPLERS.register("random_balanced")
class RandomBalancedSampler(Sampler):
    """Keeps `size` anchors of an image at random, at most a share of them positive.

    Where positives are few, negatives fill up; an image without positives keeps `size` negatives.
    The choice is drawn from PyTorch's generator of the matches' device, so `torch.manual_seed`
    repeats it.

    Args:
        size: Anchors kept at most.
        positive_fraction: Largest share of positives among them, in [0, 1]; rounded down.

    Example:
        >>> from detloss.matchers import Matches
        >>> positive = torch.tensor([True, True, True, False, False, False])
        >>> matches = Matches(torch.zeros(6, dtype=torch.long), positive, torch.zeros(6).bool())
        >>> kept = RandomBalancedSampler(size=4, positive_fraction=0.25)(matches)
        >>> kept.positive.sum(), kept.negative.sum()
        (tensor(1), tensor(3))

    Reference:
        Ren et al., "Faster R-CNN", NeurIPS 2015, arXiv:1506.01497, section 3.1.3: 256 anchors,
        up to 1:1.
    """

    def __init__(self, *, size: PositiveInt = 256, positive_fraction: Fraction = 0.5) -> None:
        super().__init__()
        self.size = size
        self.positive_fraction = positive_fraction

    def left_out(self, positive: Tensor, negative: Tensor, class_loss: Tensor | None) -> Tensor:
        """The anchors that were not drawn; see `Sampler.left_out`."""
        lots = torch.rand(positive.shape, device=positive.device)
        drawn = keep_smallest(positive, lots, int(self.size * self.positive_fraction))
        rest = self.size - drawn.sum(-1, keepdim=True)
        return (positive & ~drawn) | (negative & ~keep_smallest(negative, lots, rest))
