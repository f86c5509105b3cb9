"""The coder of anchor-free detectors: the distances from a point to the four sides of a box."""

from typing import ClassVar

import torch
from torch import Tensor

from detloss.coders.base import MIN_SIDE, Coder, check_rows
from detloss.kernels import Space
from detloss.registry import CODERS
from detloss.tensors import widen


@CODERS.register("ltrb")
class LTRBCoder(Coder):
    """Boxes as distances (left, top, right, bottom) from the centres of anchors.

    ``l = (x - x1) / w``, ``t = (y - y1) / h``, ``r = (x2 - x) / w``, ``b = (y2 - y) / h``: (x, y)
    is the centre of the anchor and w, h its sides, or 1 without `normalize`. `decode` is the
    inverse.

    Detectors differ in how a network's output becomes a distance: by ``exp``, ``relu`` or not at
    all. That is done in the model; this coder takes the distances themselves.

    Args:
        normalize: Whether distances are in sides of the anchor (which is the stride, for the
            anchors of `grid_points`), rather than in the unit of the boxes.

    Example:
        >>> anchors, boxes = torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[-4.0, 2, 12, 20]])
        >>> coder = LTRBCoder()
        >>> coder.encode(boxes, anchors)
        tensor([[1.0000, 0.2500, 1.0000, 2.0000]])
        >>> coder.decode(coder.encode(boxes, anchors), anchors)
        tensor([[-4.,  2., 12., 20.]])

    Reference:
        Tian et al., "FCOS", ICCV 2019, arXiv:1904.01355, equation 1.
    """

    spaces: ClassVar[frozenset[Space]] = frozenset({"boxes", "deltas"})

    def __init__(self, *, normalize: bool = True) -> None:
        super().__init__()
        self.normalize = normalize

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Distances of the sides of `boxes` from the centres of `anchors`.

        Args:
            boxes: (..., 4) as (x1, y1, x2, y2), floating point.
            anchors: Boxes of the same shape and unit.

        Returns:
            Distances (..., 4), negative where a side lies on the other side of the centre; float16
            and bfloat16 are computed in float32.

        Raises:
            TypeError: If boxes are not floating point.
            ValueError: If the shapes differ or the last axis is not 4.
        """
        return side_distances(boxes, anchors, normalize=self.normalize)

    def decode(self, regression: Tensor, anchors: Tensor) -> Tensor:
        """Boxes whose sides have these distances from the centres of `anchors`.

        Args:
            regression: Distances (..., 4), floating point.
            anchors: Boxes of the same shape as (x1, y1, x2, y2).

        Returns:
            Boxes (..., 4), in the unit of the anchors; inverted where ``l + r`` or ``t + b`` is
            negative. float16 and bfloat16 are computed in float32.

        Raises:
            TypeError: If a tensor is not floating point.
            ValueError: If the shapes differ or the last axis is not 4.
        """
        check_rows("regression", regression, anchors)
        return boxes_at(regression, anchors, normalize=self.normalize)


def side_distances(boxes: Tensor, anchors: Tensor, *, normalize: bool) -> Tensor:
    """Distances (..., 4) of the sides of `boxes` from the centres of `anchors`, both (..., 4)."""
    check_rows("boxes", boxes, anchors)
    boxes = widen(boxes)
    centre, side = _centre_and_side(anchors, normalize)
    return torch.cat([(centre - boxes[..., :2]) / side, (boxes[..., 2:] - centre) / side], dim=-1)


def boxes_at(distances: Tensor, anchors: Tensor, *, normalize: bool) -> Tensor:
    """Boxes (..., 4) whose sides have these distances (..., 4) from the centres of `anchors`."""
    distances = widen(distances)
    centre, side = _centre_and_side(anchors, normalize)
    return torch.cat(
        [centre - distances[..., :2] * side, centre + distances[..., 2:] * side], dim=-1
    )


def _centre_and_side(anchors: Tensor, normalize: bool) -> tuple[Tensor, Tensor | float]:
    """Centres (..., 2) of `anchors` (..., 4), and the unit of distances: sides (..., 2), or 1."""
    anchors = widen(anchors)
    top_left, bottom_right = anchors[..., :2], anchors[..., 2:]
    centre = (top_left + bottom_right) / 2
    return centre, (bottom_right - top_left).clamp(min=MIN_SIDE) if normalize else 1.0
