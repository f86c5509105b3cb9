"""What every normalizer is, and how the ranks of a distributed run agree on a count."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor, distributed

from detloss.registry import Part


@dataclass(frozen=True)
class Counts:
    """What a normalizer may count in a batch of B images.

    Attributes:
        positives: (B,) positive anchors of each image.
        ground_truths: (B,) boxes to learn, those to ignore left out; None where nobody counted.
        target_scores: (B,) sum over the positive anchors of what their ground truths weigh; None
            where nobody counted.
    """

    positives: Tensor
    ground_truths: Tensor | None = None
    target_scores: Tensor | None = None


class Normalizer(Part):
    """Says what the sum of a loss over the anchors of a batch is divided by.

    With DistributedDataParallel each rank has a loss of its own and the gradients are averaged. A
    normalizer with ``sync`` counts over all ranks and divides by their number, so that W ranks with
    B images each learn what one process with W B images learns. Every rank must then call the
    criterion equally often.
    """

    @abstractmethod
    def forward(self, counts: Counts) -> Tensor:
        """The divisor of each image's sum, (B,); the loss is the sum of the quotients."""
        raise NotImplementedError


def ranks(*, sync: bool) -> int:
    """How many ranks count together: those of the process group with `sync`, if there is one."""
    together = sync and distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if together else 1


def total(count: Tensor, *, sync: bool) -> Tensor:
    """The sum of `count` (...,) over the images and, with `sync`, the ranks.

    Example:
        >>> import torch
        >>> total(torch.tensor([4, 0]), sync=True)
        tensor(4.)
    """
    summed = count.sum().float()
    if ranks(sync=sync) > 1:
        distributed.all_reduce(summed)
    return summed


def batch_divisor(count: Tensor, *, sync: bool) -> Tensor:
    """(B,) the sum of `count` (B,), at least 1; with `sync` the ranks' sum over their number."""
    return (total(count, sync=sync).clamp(min=1) / ranks(sync=sync)).expand(len(count))


def counted(name: str, count: Tensor | None) -> Tensor:
    """`count`; raises ValueError where nobody counted."""
    if count is None:
        raise ValueError(f"counts must have {name}, got None")
    return count
