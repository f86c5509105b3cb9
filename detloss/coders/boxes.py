"""The coder of a head whose outputs are boxes already."""

from typing import ClassVar

import torch
from torch import Tensor

from detloss.coders.base import Coder, centre_and_size, check_rows
from detloss.kernels import Space
from detloss.registry import CODERS
from detloss.tensors import widen


@CODERS.register("boxes")
class BoxesCoder(Coder):
    """Boxes as they are, (x1, y1, x2, y2), or in sides of their anchors.

    ``c = b / (w, h, w, h)`` with b the box and w, h the sides of the anchor, or 1 without
    `normalize`. `decode` is the inverse. It is for a head that decodes by itself, such as TOOD's,
    which gives boxes in strides.

    Args:
        normalize: Whether boxes are regressed in sides of the anchor (which is the stride, for the
            anchors of `grid_points`), rather than in the unit of the boxes.

    Example:
        >>> anchors, boxes = torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[-4.0, 2, 12, 20]])
        >>> BoxesCoder().encode(boxes, anchors)
        tensor([[-4.,  2., 12., 20.]])
        >>> BoxesCoder(normalize=True).decode(torch.tensor([[-0.5, 0.25, 1.5, 2.5]]), anchors)
        tensor([[-4.,  2., 12., 20.]])

    Reference:
        Feng et al., "TOOD: Task-aligned One-stage Object Detection", ICCV 2021, arXiv:2108.07755,
        section 3.1: the head itself moves the sides of its boxes.
    """

    spaces: ClassVar[frozenset[Space]] = frozenset({"boxes", "deltas"})

    def __init__(self, *, normalize: bool = False) -> None:
        super().__init__()
        self.normalize = normalize

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """`boxes` in the unit of the head.

        Args:
            boxes: (..., 4) as (x1, y1, x2, y2), floating point.
            anchors: Boxes of the same shape and unit; only their sides are looked at.

        Returns:
            Boxes (..., 4); float16 and bfloat16 are computed in float32.

        Raises:
            TypeError: If a tensor is not floating point.
            ValueError: If the shapes differ or the last axis is not 4.
        """
        check_rows("boxes", boxes, anchors)
        return widen(boxes) / self._unit(anchors)

    def decode(self, regression: Tensor, anchors: Tensor) -> Tensor:
        """What is regressed in the unit of the anchors.

        Args:
            regression: Boxes (..., 4), floating point.
            anchors: Boxes of the same shape as (x1, y1, x2, y2).

        Returns:
            Boxes (..., 4), inverted where they are regressed so; float16 and bfloat16 are computed
            in float32.

        Raises:
            TypeError: If a tensor is not floating point.
            ValueError: If the shapes differ or the last axis is not 4.
        """
        check_rows("regression", regression, anchors)
        return widen(regression) * self._unit(anchors)

    def _unit(self, anchors: Tensor) -> Tensor | float:
        """(..., 4) width and height of each anchor, twice; or 1."""
        if not self.normalize:
            return 1.0
        _, size = centre_and_size(anchors)
        return torch.cat([size, size], dim=-1)
