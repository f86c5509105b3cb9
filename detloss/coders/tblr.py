"""The coder of FSAF: the distances of `LTRBCoder` in another order, in larger units."""

from typing import ClassVar

import torch
from torch import Tensor

from detloss.coders.base import Coder, check_rows
from detloss.coders.ltrb import boxes_at, side_distances
from detloss.kernels import Space
from detloss.registry import CODERS, Positive
from detloss.tensors import widen

LTRB_TO_TBLR = (1, 3, 0, 2)
TBLR_TO_LTRB = (2, 0, 3, 1)


@CODERS.register("tblr")
class TBLRCoder(Coder):
    """Boxes as distances (top, bottom, left, right) from the centres of anchors.

    ``t = (y - y1) / (S h)``, ``b = (y2 - y) / (S h)``, ``l = (x - x1) / (S w)``, ``r = (x2 - x) /
    (S w)``: (x, y) is the centre of the anchor, w and h its sides, S the `normalizer`. `decode` is
    the inverse.

    Args:
        normalizer: S, how many sides of the anchor are one unit of distance.

    Example:
        >>> anchors, boxes = torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[-12.0, 0, 36, 20]])
        >>> coder = TBLRCoder()
        >>> coder.encode(boxes, anchors)
        tensor([[0.1250, 0.5000, 0.5000, 1.0000]])
        >>> coder.decode(coder.encode(boxes, anchors), anchors)
        tensor([[-12.,   0.,  36.,  20.]])

    Reference:
        Zhu et al., "Feature Selective Anchor-Free Module for Single-Shot Object Detection" (FSAF),
        CVPR 2019, arXiv:1903.00621, "Ground-truth and Loss".
    """

    spaces: ClassVar[frozenset[Space]] = frozenset({"boxes", "deltas"})

    def __init__(self, *, normalizer: Positive = 4.0) -> None:
        super().__init__()
        self.normalizer = normalizer

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Distances of the sides of `boxes` from the centres of `anchors`.

        Args:
            boxes: (..., 4) as (x1, y1, x2, y2), floating point.
            anchors: Boxes of the same shape and unit.

        Returns:
            Distances (..., 4), negative where a side lies on the other side of the centre; float16
            and bfloat16 are computed in float32.

        Raises:
            TypeError: If a tensor is not floating point.
            ValueError: If the shapes differ or the last axis is not 4.
        """
        distances = side_distances(boxes, anchors, normalize=True)
        return _ordered(distances, LTRB_TO_TBLR) / self.normalizer

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
        distances = _ordered(widen(regression), TBLR_TO_LTRB) * self.normalizer
        return boxes_at(distances, anchors, normalize=True)


def _ordered(distances: Tensor, order: tuple[int, ...]) -> Tensor:
    """The columns of `distances` (..., 4) in that order. A list as an index is a host sync."""
    columns = distances.unbind(-1)
    return torch.stack([columns[place] for place in order], dim=-1)
