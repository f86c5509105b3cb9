"""What every box coder is."""

from abc import abstractmethod
from typing import ClassVar, get_args

from torch import Tensor

from detloss.kernels import Space
from detloss.registry import Part


class Coder(Part):
    """Translates between boxes and what a network regresses for them at its anchors.

    Anchors are always boxes (..., 4) as (x1, y1, x2, y2). A point is the square of its stride's
    side around it.
    """

    spaces: ClassVar[frozenset[Space]]
    """The spaces in which a box loss may be computed with this coder."""

    bins: int = 1
    """The logits a side; 1 where the network regresses the number itself."""

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
