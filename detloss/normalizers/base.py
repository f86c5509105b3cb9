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


def total_and_ranks(count: Tensor, *, sync: bool) -> tuple[Tensor, int]:
    """The sum of `count` (...,) over the images and, with `sync`, the ranks; and how many they are.

    Without a process group there is one rank.

    Example:
        >>> total_and_ranks(torch.tensor([4, 0]), sync=True)
        (tensor(4.), 1)
    """
    total = count.sum().float()
    if not (sync and distributed.is_available() and distributed.is_initialized()):
        return total, 1
    distributed.all_reduce(total)
    return total, distributed.get_world_size()


def batch_divisor(count: Tensor, *, sync: bool) -> Tensor:
    """(B,) the sum of `count` (B,), at least 1; with `sync` the ranks' sum over their number."""
    total, ranks = total_and_ranks(count, sync=sync)
    return (total.clamp(min=1) / ranks).expand(len(count))


def counted(name: str, count: Tensor | None) -> Tensor:
    """`count`; raises ValueError where nobody counted."""
    if count is None:
        raise ValueError(f"counts must have {name}, got None")
    return count
