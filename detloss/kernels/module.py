"""The module form of a loss: its hyperparameters, a reduction and a normalizer."""

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from detloss.kernels.reduction import Reduction
from detloss.registry import Part


class Loss(Part):
    """A loss function with its hyperparameters.

    A subclass names the `function` and takes in its constructor what the function takes by
    keyword, under the same names.

    Args:
        reduction: "mean", "sum", "image" or "none".
    """

    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, reduction: Reduction) -> None:
        super().__init__()
        self.reduction = reduction

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        normalizer: Tensor | float | None = None,
    ) -> Tensor:
        """The loss of `pred` against `target`.

        Args:
            pred: What the network predicts, as the function of the same name documents it.
            target: What is true.
            weight: Factors of the rows or elements; 0 gives an exactly zero gradient.
            normalizer: Replaces the count that a mean divides by, such as the positives of the
                whole batch.

        Raises:
            ValueError: If a normalizer comes with another reduction than "mean".
        """
        if normalizer is None:
            return self.compute(pred, target, weight=weight, reduction=self.reduction)
        if self.reduction != "mean":
            raise ValueError(
                f"normalizer divides a mean; it needs reduction='mean', got {self.reduction!r}"
            )
        return self.compute(pred, target, weight=weight, reduction="sum") / normalizer

    def compute(
        self, pred: Tensor, target: Tensor, *, weight: Tensor | None, reduction: Reduction
    ) -> Tensor:
        """Calls the loss function with the hyperparameters of this module."""
        options = {name: getattr(self, name) for name in self.option_names if name != "reduction"}
        return self.function(pred, target, **options, weight=weight, reduction=reduction)
