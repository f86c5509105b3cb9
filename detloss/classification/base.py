"""What every classification loss module is."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from detloss.kernels import Loss, Reduction
from detloss.registry import PerClass


class ClassificationLoss(Loss):
    """A loss of logits (..., C) against class indices (...,) or a dense target (..., C).

    `background_columns` says how many columns of the logits stand for "no object": 0 for the
    yes-or-no losses, 1 for the softmax losses. `differentiable` is False for a mere metric.

    Args:
        class_weight: (C,) factor of each column, kept as a buffer; None for all 1.
        ignore_index: The class index of rows to leave out.
        reduction: "mean", "sum", "image" or "none".
    """

    background_columns: ClassVar[int] = 0
    differentiable: ClassVar[bool] = True
    class_weight: Tensor | None

    def __init__(
        self, class_weight: PerClass | None, ignore_index: int, reduction: Reduction
    ) -> None:
        super().__init__(reduction)
        self.ignore_index = ignore_index
        self.keep_per_class("class_weight", class_weight)

    def keep_per_class(self, name: str, values: float | PerClass | None) -> None:
        """Keeps (C,) `values` as the buffer `name`, a scalar or None as a plain attribute.

        Raises:
            ValueError: If `values` is not one-dimensional.
        """
        if not isinstance(values, Sequence | Tensor):
            setattr(self, name, values)
            return
        values = torch.as_tensor(values, dtype=torch.get_default_dtype()).clone()
        if values.ndim != 1:
            raise ValueError(f"{name} must have shape (C,), got {tuple(values.shape)}")
        # not in the state_dict: a setting from the config, which a checkpoint must not overrule
        self.register_buffer(name, values, persistent=False)
