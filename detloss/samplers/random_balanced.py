"""Random balanced sampling: a fixed number of anchors, with a share of positives at most."""

import torch
from torch import Tensor

from detloss.matchers import Matches
from detloss.registry import SAMPLERS, Fraction, PositiveInt
from detloss.samplers.base import Sampler, keep_smallest, leave_out


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

    @torch.no_grad()
    def forward(self, matches: Matches, class_loss: Tensor | None = None) -> Matches:
        """The matches with the anchors that were not drawn ignored; see `Sampler.forward`."""
        lots = torch.rand(len(matches.positive), device=matches.positive.device)
        positive = keep_smallest(matches.positive, lots, int(self.size * self.positive_fraction))
        negative = keep_smallest(matches.negative, lots, self.size - positive.sum())
        return leave_out(matches, ~(positive | negative | matches.ignored))
