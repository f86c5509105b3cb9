"""The coder of FoveaBox: the logarithms of the distances from a point to the sides of a box."""

from typing import Annotated, ClassVar

from annotated_types import Gt
from torch import Tensor

from detloss.coders.base import Coder, bounded_exp, check_rows
from detloss.coders.ltrb import boxes_at, side_distances
from detloss.kernels import Space
from detloss.registry import CODERS, Positive
from detloss.tensors import widen


@CODERS.register("fovea")
class FoveaCoder(Coder):
    """Boxes as logarithms of the distances (left, top, right, bottom) from the centres of anchors.

    ``l = ln((x - x1) / (S w))``, ``t = ln((y - y1) / (S h))``, ``r = ln((x2 - x) / (S w))``, ``b =
    ln((y2 - y) / (S h))``: (x, y) is the centre of the anchor, w and h its sides, S the `scale`.
    `decode` is the inverse, with ``exp`` cut at 10,000.

    Args:
        scale: S, the distance with logarithm 0, in sides of the anchor. FoveaBox has base edges of
            16, 32, ... pixels at strides of 8, 16, ...: 2.
        limit: Distances to learn are cut to [1 / limit, limit] before the logarithm, so that a
            side on the other side of the centre has one.

    Example:
        >>> import torch
        >>> anchors, boxes = torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[-12.0, 3, 36, 20]])
        >>> coder = FoveaCoder()
        >>> coder.encode(boxes, anchors)  # the distances are 16, 1, 32 and 16 of 16
        tensor([[ 0.0000, -2.7726,  0.6931,  0.0000]])
        >>> coder.decode(coder.encode(boxes, anchors), anchors)
        tensor([[-12.,   3.,  36.,  20.]])

    Reference:
        Kong et al., "FoveaBox: Beyond Anchor-Based Object Detection", IEEE Transactions on Image
        Processing 29, 2020, arXiv:1904.03797, "Box Prediction". `limit` is mmdetection's.
    """

    spaces: ClassVar[frozenset[Space]] = frozenset({"boxes", "deltas"})

    def __init__(self, *, scale: Positive = 2.0, limit: Annotated[float, Gt(1)] = 16.0) -> None:
        super().__init__()
        self.scale = scale
        self.limit = limit

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Logarithms of the distances of the sides of `boxes` from the centres of `anchors`.

        Args:
            boxes: (..., 4) as (x1, y1, x2, y2), floating point.
            anchors: Boxes of the same shape and unit.

        Returns:
            Logarithms (..., 4), at most ln(limit) from 0; float16 and bfloat16 are computed in
            float32.

        Raises:
            TypeError: If a tensor is not floating point.
            ValueError: If the shapes differ or the last axis is not 4.
        """
        distances = side_distances(boxes, anchors, normalize=True) / self.scale
        return distances.clamp(1 / self.limit, self.limit).log()

    def decode(self, regression: Tensor, anchors: Tensor) -> Tensor:
        """Boxes whose sides have these distances from the centres of `anchors`; never inverted.

        Args:
            regression: Logarithms (..., 4), floating point.
            anchors: Boxes of the same shape as (x1, y1, x2, y2).

        Returns:
            Boxes (..., 4), in the unit of the anchors; float16 and bfloat16 are computed in
            float32.

        Raises:
            TypeError: If a tensor is not floating point.
            ValueError: If the shapes differ or the last axis is not 4.
        """
        check_rows("regression", regression, anchors)
        return boxes_at(bounded_exp(widen(regression)) * self.scale, anchors, normalize=True)
