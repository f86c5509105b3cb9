"""What every normalizer is."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from detloss.registry import Part


@dataclass(frozen=True)
class Counts:
    """What a normalizer may count in a batch of B images.

    Attributes:
        positives: (B,) positive anchors of each image.
    """

    positives: Tensor


class Normalizer(Part):
    """Says what the sum of a loss over the anchors of a batch is divided by."""

    @abstractmethod
    def forward(self, counts: Counts) -> Tensor:
        """The divisor of each image's sum, (B,); the loss is the sum of the quotients."""
        raise NotImplementedError
