"""What every box-regression loss module is."""

from typing import Any, ClassVar, get_args

from torch import Tensor

from detloss.kernels import Loss, Reduction, Space

__all__ = ["BoxLoss", "Space"]


class BoxLoss(Loss):
    """A loss over rows, one value a row: scalar, or (...,) unreduced.

    `space` says what a row is. "boxes": pred and target (..., 4) as (x1, y1, x2, y2). "deltas":
    both (..., 4) as a coder encodes them. "bins": pred (..., 4, bins) logits, target (..., 4)
    distances in bins. A detector head encodes or decodes accordingly, so that a config may swap
    one loss for the other.
    """

    space: ClassVar[Space]

    @classmethod
    def check_definition(cls) -> None:
        """See `Part.check_definition`: the space, too."""
        super().check_definition()
        space = getattr(cls, "space", None)
        if space not in get_args(Space):
            accepted = " or ".join(map(repr, get_args(Space)))
            raise TypeError(
                f"{cls.__name__}: a box loss states what its rows hold: write "
                f"`space: ClassVar[Space] = ...` in the class, {accepted}, got {space!r}"
            )

    @property
    def reads_image_size(self) -> bool:
        """Whether it measures by the image, and has no option that says the image's size.

        Then a criterion hands it the size of each row's image.
        """
        return False

    def in_images(self, image_size: Tensor) -> dict[str, Any]:
        """The options that such a size, see `compute`, replaces.

        Raises:
            TypeError: If the loss does not read it.
        """
        raise TypeError(f"{self.type_name} does not read the size of an image")

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        normalizer: Tensor | float | None = None,
        *,
        image_size: Tensor | None = None,
    ) -> Tensor:
        """The loss of `pred` against `target`; see `Loss.forward`.

        Args:
            pred: What the network predicts, as the function of the same name documents it.
            target: What is true.
            weight: (...,) factors of the rows; 0 gives an exactly zero gradient.
            normalizer: Replaces the count that a mean divides by.
            image_size: (2,) or (..., 2) height and width of each row's image, in the unit of the
                boxes, for a loss that `reads_image_size`.

        Raises:
            TypeError: If a size is given to a loss that does not read it.
            ValueError: If a normalizer comes with another reduction than "mean".
        """
        reduction = self.reduction_before(normalizer)
        loss = self.compute(pred, target, image_size=image_size, weight=weight, reduction=reduction)
        return loss if normalizer is None else loss / normalizer

    def compute(
        self,
        pred: Tensor,
        target: Tensor,
        *,
        image_size: Tensor | None = None,
        weight: Tensor | None,
        reduction: Reduction,
    ) -> Tensor:
        """Calls the loss function with the hyperparameters of this module."""
        options = self.options()
        if image_size is not None:
            options.update(self.in_images(image_size))
        return self.function(pred, target, **options, weight=weight, reduction=reduction)
