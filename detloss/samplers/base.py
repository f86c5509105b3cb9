"""What every sampler is."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from detloss.matchers import Matches
from detloss.registry import Part
from detloss.tensors import sync_is_free


class Sampler(Part):
    """Chooses the anchors of an image that count; the others become ignored.

    A subclass implements `left_out`, for all images at once. `needs_class_loss` says that the
    choice depends on the classification loss of each anchor.
    """

    needs_class_loss: ClassVar[bool] = False

    def left_out(self, positive: Tensor, negative: Tensor, class_loss: Tensor | None) -> Tensor:
        """(B, A) bool, the anchors that do not count, of those that the matcher did not ignore.

        Args:
            positive: (B, A) bool.
            negative: (B, A) bool.
            class_loss: (B, A), where the sampler needs it.
        """
        raise NotImplementedError(f"{type(self).__name__} must have left_out or forward")

    @torch.no_grad()
    def forward(self, matches: Matches, class_loss: Tensor | None = None) -> Matches:
        """The matches with the anchors that do not count ignored, and with `sampled` set.

        Args:
            matches: Of the A anchors of one image.
            class_loss: (A,) classification loss of each anchor, where the sampler needs it.

        Raises:
            ValueError: If the loss is needed, and missing or of another shape than (A,).
        """
        return self._sampled([matches], None if class_loss is None else class_loss[None])[0]

    @torch.no_grad()
    def batch(self, matches: Sequence[Matches], class_loss: Tensor | None = None) -> list[Matches]:
        """The matches of B images, those that are not `sampled` yet as `forward` makes them.

        Args:
            matches: Of each image.
            class_loss: (B, A), where the sampler needs it.
        """
        if type(self).forward is Sampler.forward:
            sampled = self._sampled(matches, class_loss)
        else:
            losses = [None] * len(matches) if class_loss is None else class_loss.unbind()
            sampled = [self(*of_image) for of_image in zip(matches, losses, strict=True)]
        return [
            given if given.sampled else found for given, found in zip(matches, sampled, strict=True)
        ]

    def _sampled(self, matches: Sequence[Matches], class_loss: Tensor | None) -> list[Matches]:
        positive = torch.stack([match.positive for match in matches])
        ignored = torch.stack([match.ignored for match in matches])
        if self.needs_class_loss and (class_loss is None or class_loss.shape != positive.shape):
            got = None if class_loss is None else tuple(class_loss.shape[1:])
            raise ValueError(f"class_loss must have shape {tuple(positive.shape[1:])}, got {got}")
        return _leave_out(matches, self.left_out(positive, ~(positive | ignored), class_loss))


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
    return _leave_out([matches], left_out[None])[0]


def _leave_out(matches: Sequence[Matches], left_out: Tensor) -> list[Matches]:
    """`leave_out` for B images at once, `left_out` (B, A)."""
    positive = torch.stack([match.positive for match in matches]) & ~left_out
    index = torch.where(positive, torch.stack([match.target_index for match in matches]), 0)
    ignored = torch.stack([match.ignored for match in matches]) | left_out
    found = []
    for image, (match, score) in enumerate(zip(matches, _scores(matches, positive), strict=True)):
        pairs, is_pair = _pairs_that_stay(match, left_out[image])
        found.append(
            Matches(
                index[image],
                positive[image],
                ignored[image],
                score=score,
                pairs=pairs,
                sampled=True,
                is_pair=is_pair,
            )
        )
    return found


def _scores(matches: Sequence[Matches], positive: Tensor) -> Sequence[Tensor | None]:
    """The score of each image, 0 where an anchor is not in `positive` (B, A); None without one."""
    scores = [match.score for match in matches if match.score is not None]
    if len(scores) == len(matches):
        return torch.where(positive, torch.stack(scores), 0).unbind()
    return [
        None if match.score is None else torch.where(positive[image], match.score, 0)
        for image, match in enumerate(matches)
    ]


def _pairs_that_stay(match: Matches, left_out: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """`pairs` and `is_pair` of an image without those of the anchors `left_out` (A,)."""
    pairs, is_pair = match.pairs, match.is_pair
    if pairs is not None:
        stays = ~left_out[pairs[:, 0]]
        if is_pair is None and sync_is_free(stays):
            pairs = pairs[stays]
        else:
            is_pair = stays if is_pair is None else is_pair & stays
    return pairs, is_pair


def keep_smallest(candidates: Tensor, keys: Tensor, count: Tensor | int) -> Tensor:
    """The candidates (..., A) of smallest keys, as a mask; of equal ones the first.

    Args:
        candidates: (..., A) bool.
        keys: (..., A).
        count: How many, or (..., 1) of such.

    Example:
        >>> candidates = torch.tensor([True, True, False, True])
        >>> keep_smallest(candidates, torch.tensor([3.0, 1.0, 0.0, 2.0]), 2)
        tensor([False,  True, False,  True])
    """
    order = torch.where(candidates, keys, torch.inf).argsort(stable=True)
    # candidates first even if a key is infinite itself
    order = order.gather(-1, (~candidates.gather(-1, order)).long().argsort(stable=True))
    place = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(-1, order, place)
    return candidates & (rank < count)
