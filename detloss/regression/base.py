"""What every box-regression loss module is."""

from typing import ClassVar, get_args

from detloss.kernels import Loss, Space

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
