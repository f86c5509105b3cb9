"""What every sampler is."""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from detloss.matchers import Matches
from detloss.registry import Part


class Sampler(Part):
    """Chooses the anchors of an image that count; the others become ignored.

    `needs_class_loss` says that the choice depends on the classification loss of each anchor.
    """

    needs_class_loss: ClassVar[bool] = False

    @abstractmethod
    def forward(self, matches: Matches, class_loss: Tensor | None = None) -> Matches:
        """The matches with the anchors that do not count ignored.

        Args:
            matches: What a matcher says of the A anchors of one image.
            class_loss: (A,) classification loss of each anchor, where the sampler needs it.
        """
        raise NotImplementedError


def keep_smallest(candidates: Tensor, keys: Tensor, count: Tensor | int) -> Tensor:
    """The `count` candidates (A,) with the smallest keys, as a mask; the first of equal ones.

    Example:
        >>> candidates = torch.tensor([True, True, False, True])
        >>> keep_smallest(candidates, torch.tensor([3.0, 1.0, 0.0, 2.0]), 2)
        tensor([False,  True, False,  True])
    """
    order = torch.where(candidates, keys, torch.inf).argsort(stable=True)
    # candidates first even if a key is infinite itself
    order = order[(~candidates[order]).long().argsort(stable=True)]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return candidates & (rank < count)
