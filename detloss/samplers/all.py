"""Every matched anchor counts."""

from torch import Tensor

from detloss.matchers import Matches
from detloss.registry import SAMPLERS
from detloss.samplers.base import Sampler


@SAMPLERS.register("all")
class AllSampler(Sampler):
    """Keeps every positive and every negative, as focal loss wants it.

    Example:
        >>> import torch
        >>> no = torch.tensor([False, False])
        >>> matches = Matches(torch.tensor([0, 0]), torch.tensor([True, False]), no)
        >>> AllSampler()(matches).negative
        tensor([False,  True])

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002,
        section 4.1: the loss is applied to all anchors of an image.
    """

    def forward(self, matches: Matches, class_loss: Tensor | None = None) -> Matches:
        """`matches` with `sampled` set; see `Sampler.forward`."""
        return Matches(
            matches.target_index,
            matches.positive,
            matches.ignored,
            matches.score,
            matches.pairs,
            sampled=True,
            is_pair=matches.is_pair,
        )
