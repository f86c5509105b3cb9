"""What every classification loss module is."""

import inspect
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from detloss.buffers import KeptBuffers
from detloss.kernels import Loss, Reduction
from detloss.kernels.reduction import at_least_one
from detloss.kernels.targets import check_range
from detloss.registry import PerClass


class ClassificationLoss(Loss, KeptBuffers):
    """A loss of logits (..., C) against class indices (...,) or a dense target (..., C).

    `background_columns` says how many columns of the logits stand for "no object": 0 for the
    yes-or-no losses, 1 for the softmax losses. `differentiable` is False for a mere metric.
    `takes_quality` says whether the class of a row may have a soft label, as in every yes-or-no
    loss, and `default_label` which quality it is in a detector where the config names none.

    Args:
        class_weight: (C,) factor of each column, kept as a buffer; None for all 1.
        ignore_index: The class index of rows to leave out.
        reduction: "mean", "sum", "image" or "none".
    """

    background_columns: ClassVar[int] = 0
    background_index: int = -1
    differentiable: ClassVar[bool] = True
    takes_quality: ClassVar[bool] = False
    default_label: ClassVar[str] = "one"
    class_weight: Tensor | None

    def __init__(
        self, class_weight: PerClass | None, ignore_index: int, reduction: Reduction
    ) -> None:
        super().__init__(reduction)
        self.ignore_index = ignore_index
        self.keep_per_class("class_weight", class_weight)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "function" in cls.__dict__:
            cls.takes_quality = "quality" in inspect.signature(cls.function).parameters

    @staticmethod
    def dense_labels(shares: Tensor) -> Tensor:
        """Shares of "yes" (..., C), in [0, 1], as the loss wants them in a dense target."""
        return shares

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        normalizer: Tensor | float | None = None,
        *,
        quality: Tensor | None = None,
    ) -> Tensor:
        """The loss of `pred` against `target`; see `Loss.forward`, also for the other errors.

        Args:
            pred: Logits (..., C).
            target: Class indices (...,) or a value for each class (..., C).
            weight: Factors of the rows or elements; 0 gives an exactly zero gradient.
            normalizer: Replaces the count that a mean divides by.
            quality: (...,) soft labels beside class indices, for a loss that takes them.

        Raises:
            TypeError: If a quality is given to a loss that takes none.
        """
        reduction = self.reduction_before(normalizer)
        loss = self.compute(pred, target, quality=quality, weight=weight, reduction=reduction)
        return loss if normalizer is None else loss / at_least_one(normalizer)

    def compute(
        self,
        pred: Tensor,
        target: Tensor,
        *,
        quality: Tensor | None = None,
        weight: Tensor | None,
        reduction: Reduction,
    ) -> Tensor:
        """Calls the loss function with the hyperparameters of this module."""
        self.check_filled(pred)
        if quality is None:
            return super().compute(pred, target, weight=weight, reduction=reduction)
        if not self.takes_quality:
            raise TypeError(
                f"{self.type_name} takes no quality, since its classes share one probability"
            )
        return self.function(
            pred, target, **self.options(), quality=quality, weight=weight, reduction=reduction
        )

    def keep_per_class(
        self,
        name: str,
        values: float | PerClass | None,
        *,
        highest: float = math.inf,
        positive: bool = False,
    ) -> None:
        """Keeps (C,) `values` as the buffer `name`, a scalar or None as a plain attribute.

        Raises:
            TypeError: If `values` are booleans.
            ValueError: If `values` is not one-dimensional or empty, or one is out of range; see
                `check_range`.
        """
        if not isinstance(values, (Sequence, Tensor)):
            setattr(self, name, values)
            return
        shape = torch.as_tensor(values).shape
        if len(shape) != 1 or not shape[0]:
            raise ValueError(f"{name} must have shape (C,), got {tuple(shape)}")
        check_range(name, values, highest, positive=positive)
        # not in the state_dict: a setting from the config, which a checkpoint must not overrule
        self.keep_buffer(name, values, persistent=False)
