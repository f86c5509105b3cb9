"""What every box coder is."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, get_args

import torch
from torch import Tensor

from detloss.boxes.checking import check_boxes
from detloss.kernels import Space
from detloss.registry import Part
from detloss.tensors import check_same_shape, widen

MIN_SIDE = 1e-6
"""Floor of a side where it is a unit or in a logarithm: a box without area has finite codes."""

MAX_LOG_SIZE = math.log(10_000)
"""The largest logarithm of a size that is decoded, so that no wild prediction overflows ``exp``:
10,000 cells or anchors, more than any image has.
"""


class Coder(Part):
    """Translates between boxes and what a network regresses for them at its anchors.

    Anchors are always boxes (..., 4) as (x1, y1, x2, y2). A point is the square of its stride's
    side around it.
    """

    spaces: ClassVar[frozenset[Space]]
    """The spaces in which a box loss may be computed with this coder."""

    bins: int = 1
    """The logits a side; 1 where the network regresses the number itself."""
    strides: Sequence[float] | None = None
    """Of each pyramid level, where an anchor box does not tell the size of its cell: `encode` and
    `decode` then take the stride of each anchor, (...), as a third argument.
    """

    @classmethod
    def check_definition(cls) -> None:
        """See `Part.check_definition`: the spaces, too."""
        super().check_definition()
        spaces = getattr(cls, "spaces", None)
        if not (isinstance(spaces, frozenset) and spaces and spaces <= set(get_args(Space))):
            accepted = " or ".join(map(repr, get_args(Space)))
            raise TypeError(
                f"{cls.__name__}: a coder states in which spaces a box loss may be computed with "
                "it: write `spaces: ClassVar[frozenset[Space]] = frozenset({...})` in the class, "
                f"of {accepted}, got {spaces!r}"
            )

    @property
    def width(self) -> int:
        """The columns K of "box_regression"."""
        return 4 * self.bins

    @abstractmethod
    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """The target (..., 4), in "deltas" or "bins" space, of `boxes` (..., 4) at `anchors`."""
        raise NotImplementedError

    @abstractmethod
    def decode(self, regression: Tensor, anchors: Tensor) -> Tensor:
        """The boxes (..., 4) that `regression` (..., K) makes of `anchors` (..., 4)."""
        raise NotImplementedError


def check_rows(name: str, rows: Tensor, anchors: Tensor) -> None:
    """Raises unless `rows` and `anchors` are floating point and of one shape (..., 4)."""
    check_boxes(name, rows)
    check_boxes("anchors", anchors)
    check_same_shape(name, rows, "anchors", anchors)


def centre_and_size(boxes: Tensor, min_size: float = MIN_SIDE) -> tuple[Tensor, Tensor]:
    """Centres (..., 2) and sizes (..., 2), at least `min_size`, of `boxes` (..., 4).

    Example:
        >>> centre_and_size(torch.tensor([[0.0, 2, 10, 2]]))
        (tensor([[5., 2.]]), tensor([[1.0000e+01, 1.0000e-06]]))
    """
    boxes = widen(boxes)
    top_left, bottom_right = boxes[..., :2], boxes[..., 2:]
    return (top_left + bottom_right) / 2, (bottom_right - top_left).clamp(min=min_size)


def box_around(centre: Tensor, size: Tensor) -> Tensor:
    """The boxes (..., 4) with these centres and sizes (..., 2)."""
    half = size / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def bounded_exp(log_size: Tensor) -> Tensor:
    """``exp(log_size)``, at most 10,000.

    Example:
        >>> bounded_exp(torch.tensor([0.0, 1000.0, -1000.0]))
        tensor([1.0000e+00, 1.0000e+04, 0.0000e+00])
    """
    return log_size.clamp(max=MAX_LOG_SIZE).exp()
