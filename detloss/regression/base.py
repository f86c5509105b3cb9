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
        """Whether it measures by the image, and no option says the image's size.

        Then a criterion hands the size of each row's image to `compute`.
        """
        return False

    def in_images(self, image_size: Tensor) -> dict[str, Any]:
        """The options that an `image_size`, see `compute`, replaces.

        Raises:
            TypeError: If the loss does not read it.
        """
        raise TypeError(f"{self.type_name} does not read the size of an image")

    def compute(
        self,
        pred: Tensor,
        target: Tensor,
        *,
        image_size: Tensor | None = None,
        weight: Tensor | None,
        reduction: Reduction,
    ) -> Tensor:
        """Calls the loss function with the hyperparameters of this module.

        Args:
            pred: What the network predicts, as the function of the same name documents it.
            target: What is true.
            image_size: (2,) or (..., 2) height and width of each row's image, in the unit of the
                boxes, for a loss that measures by it.
            weight: (...,) factors of the rows; 0 gives an exactly zero gradient.
            reduction: "mean", "sum", "image" or "none".

        Raises:
            TypeError: If a size is given to a loss that does not measure by it.
        """
        options = self.options()
        if image_size is not None:
            options.update(self.in_images(image_size))
        return self.function(pred, target, **options, weight=weight, reduction=reduction)
