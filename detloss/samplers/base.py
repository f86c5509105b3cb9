"""What every sampler is."""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from detloss.matchers import Matches
from detloss.registry import Part
from detloss.tensors import sync_is_free


class Sampler(Part):
    """Chooses the anchors of an image that count; the others become ignored.

    `needs_class_loss` says that the choice depends on the classification loss of each anchor.
    """

    needs_class_loss: ClassVar[bool] = False

    @abstractmethod
    def forward(self, matches: Matches, class_loss: Tensor | None = None) -> Matches:
        """The matches with the anchors that do not count ignored, and with `sampled` set.

        Args:
            matches: Of the A anchors of one image.
            class_loss: (A,) classification loss of each anchor, where the sampler needs it.
        """
        raise NotImplementedError


def leave_out(matches: Matches, left_out: Tensor) -> Matches:
    """Sampled matches in which the anchors of the mask `left_out` (A,) are ignored.

    Their score becomes 0, and their pairs go.

    Example:
        >>> no = torch.tensor([False, False])
        >>> matches = Matches(torch.tensor([3, 4]), ~no, no, pairs=torch.tensor([[0, 3], [1, 4]]))
        >>> kept = leave_out(matches, torch.tensor([True, False]))
        >>> kept.positive, kept.ignored, kept.pairs
        (tensor([False,  True]), tensor([ True, False]), tensor([[1, 4]]))
    """
    positive = matches.positive & ~left_out
    score, pairs, is_pair = matches.score, matches.pairs, matches.is_pair
    if pairs is not None:
        stays = ~left_out[pairs[:, 0]]
        if is_pair is None and sync_is_free(stays):
            pairs = pairs[stays]
        else:
            is_pair = stays if is_pair is None else is_pair & stays
    return Matches(
        target_index=torch.where(positive, matches.target_index, 0),
        positive=positive,
        ignored=matches.ignored | left_out,
        score=None if score is None else torch.where(positive, score, 0),
        pairs=pairs,
        sampled=True,
        is_pair=is_pair,
    )


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
