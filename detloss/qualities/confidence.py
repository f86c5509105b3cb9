"""How sure the classifier is of an anchor."""

from torch import Tensor

from detloss.qualities.base import Positives, Quality
from detloss.registry import QUALITIES
from detloss.tensors import widen


@QUALITIES.register("confidence")
class ConfidenceQuality(Quality):
    """The largest predicted probability of the anchor, of whatever class.

    As the weight of a box loss it makes the boxes count that will be kept.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> ConfidenceQuality()(SimpleNamespace(probabilities=torch.tensor([[0.25, 0.75]])))
        tensor([0.7500])

    Reference:
        Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388: its code weighs the
        losses of a box by the confidence of its class scores.
    """

    needs = frozenset({"class_logits"})

    def __init__(self) -> None:
        super().__init__()

    def forward(self, positives: Positives) -> Tensor:
        """See `Quality.forward`."""
        probabilities = widen(positives.probabilities)
        if not probabilities.shape[-1]:
            return probabilities.sum(-1)
        return probabilities.amax(-1)
