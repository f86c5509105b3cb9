"""The matcher's own measure of how good a match is."""

from torch import Tensor

from detloss.qualities.base import Positives, Quality
from detloss.registry import QUALITIES
from detloss.tensors import widen


@QUALITIES.register("score")
class ScoreQuality(Quality):
    """`Matches.score`, for a matcher that gives one.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> ScoreQuality()(SimpleNamespace(score=torch.tensor([0.5, 0.0])))
        tensor([0.5000, 0.0000])

    Reference:
        Feng et al., "TOOD: Task-aligned One-stage Object Detection", ICCV 2021,
        arXiv:2108.07755, section 3.2.
    """

    needs = frozenset({"score"})

    def __init__(self) -> None:
        super().__init__()

    def forward(self, positives: Positives) -> Tensor:
        """See `Quality.forward`."""
        return widen(positives.score)
