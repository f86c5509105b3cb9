"""What every box coder is."""

from abc import abstractmethod

from torch import Tensor

from detloss.registry import Part


class Coder(Part):
    """Translates between boxes and what a network regresses for them at its anchors."""

    @abstractmethod
    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """The deltas (..., 4) that turn `anchors` into `boxes`, both (..., 4) xyxy."""
        raise NotImplementedError

    @abstractmethod
    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """The boxes (..., 4) xyxy that `deltas` make of `anchors`, both (..., 4)."""
        raise NotImplementedError
