"""The module form of a loss: its hyperparameters, a reduction and a normalizer."""

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from detloss.kernels.reduction import Reduction, at_least_one, check_divisor
from detloss.registry import Part, options_of

DATA_KEYWORDS = ("quality", "weight", "reduction")
"""What a loss function may take by keyword that is no option of its class."""


class Loss(Part):
    """A loss function with its hyperparameters.

    A subclass names the `function` and takes in its constructor what the function takes by
    keyword, under the same names. One with a memory of the rows of earlier steps has `observe` and
    `move`.

    Args:
        reduction: "mean", "sum", "image" or "none".
    """

    function: ClassVar[Callable[..., Tensor]]
    own_options: ClassVar[frozenset[str]] = frozenset()
    """Options of the module that its function has no use for."""
    reduction: Reduction

    @classmethod
    def check_definition(cls) -> None:
        """See `Part.check_definition`: the function, and that it takes the class's options."""
        super().check_definition()
        function = inspect.getattr_static(cls, "function", None)
        if not isinstance(function, staticmethod):
            written = getattr(function, "__name__", "...")
            raise TypeError(
                f"{cls.__name__}: it has to name its function without making it a method: write "
                f"`function = staticmethod({written})` in the class"
            )
        name = getattr(cls.function, "__name__", "function")
        by_keyword = list(inspect.signature(cls.function).parameters)[2:]
        options = options_of(cls)
        for keyword in ("weight", "reduction"):
            if keyword not in by_keyword:
                raise TypeError(
                    f"{cls.__name__}: {name} does not take {keyword!r}: write `{keyword}` among "
                    "its keywords and hand it on to the engine"
                )
        for option in by_keyword:
            if option not in options and option not in DATA_KEYWORDS:
                raise TypeError(
                    f"{cls.__name__}: {name} takes {option!r} and the constructor does not: write "
                    f"`{option}` among its arguments and `self.{option} = {option}` in it"
                )
        for option in options:
            if option not in by_keyword and option not in cls.own_options:
                raise TypeError(
                    f"{cls.__name__}: the constructor takes {option!r} and {name} does not: write "
                    f"`{option}` among the keywords of the function"
                )
        if "reduction" not in options:
            raise TypeError(
                f"{cls.__name__}: the constructor does not take 'reduction': write "
                '`reduction: Reduction = "mean"` as its last argument and '
                "`super().__init__(reduction)` in it"
            )

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
                whole batch: a number > 0, or a tensor, in which 0 counts as 1.

        Raises:
            TypeError: If a normalizer is neither a number nor a tensor.
            ValueError: If one comes with another reduction than "mean", or is a number that is not
                finite and above 0.
        """
        reduction = self.reduction_before(normalizer)
        if self.has_memory:
            self.observe(pred, target, weight=weight)
            self.move()
        loss = self.compute(pred, target, weight=weight, reduction=reduction)
        return loss if normalizer is None else loss / at_least_one(normalizer)

    def reduction_before(self, normalizer: Tensor | float | None) -> Reduction:
        """How the loss is reduced before a normalizer divides it; see `forward` for its errors."""
        if normalizer is None:
            return self.reduction
        if self.reduction != "mean":
            raise ValueError(
                f"normalizer divides a mean; it needs reduction='mean', got {self.reduction!r}"
            )
        if not isinstance(normalizer, Tensor):
            check_divisor("normalizer", normalizer)
        return "sum"

    def options(self) -> dict[str, Any]:
        """What the function takes by keyword beside weight and reduction."""
        others = {"reduction", *self.own_options}
        return {name: getattr(self, name) for name in self.option_names if name not in others}

    def compute(
        self, pred: Tensor, target: Tensor, *, weight: Tensor | None, reduction: Reduction
    ) -> Tensor:
        """Calls the loss function with the hyperparameters of this module."""
        return self.function(pred, target, **self.options(), weight=weight, reduction=reduction)

    @property
    def has_memory(self) -> bool:
        """Whether the loss depends on rows of earlier steps."""
        return False

    def observe(self, pred: Tensor, target: Tensor, *, weight: Tensor | None) -> None:
        """Takes note of some rows of a step in training mode, for `move`; see `compute`."""

    def move(self) -> None:
        """Moves the memory by a step in training mode: by all rows noted since it last moved."""
