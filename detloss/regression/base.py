"""What every box-regression loss module is."""

from typing import ClassVar, Literal

from detloss.kernels import Loss

Space = Literal["boxes", "deltas"]


class BoxLoss(Loss):
    """A loss over rows of 4: pred (..., 4), target (..., 4) -> scalar, or (...,) unreduced.

    `space` says what the rows are: "boxes" as (x1, y1, x2, y2), or the "deltas" of a coder. A
    detector head encodes or decodes accordingly, so that a config may swap one for the other.
    """

    space: ClassVar[Space]
