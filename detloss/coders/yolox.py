"""The coder of YOLOX: a shift from the corner of a cell, the logarithm of a size in cells."""

from typing import ClassVar

import torch
from torch import Tensor

from detloss.coders.base import Coder, bounded_exp, box_around, centre_and_size, check_rows
from detloss.kernels import Space
from detloss.registry import CODERS
from detloss.tensors import widen


@CODERS.register("yolox")
class YOLOXCoder(Coder):
    """Boxes as (x, y, w, h) from the top left corner of a cell, the square of a point.

    ``tx = (x - x1a) / wa``, ``ty = (y - y1a) / ha``, ``tw = ln(w / wa)``, ``th = ln(h / ha)``: (x,
    y) is the centre of the box and (w, h) its size, (x1a, y1a) the corner of the cell and (wa, ha)
    its sides, the stride. `decode` is the inverse, with ``exp`` cut at 10,000.

    The cells of `grid_points` with offset 0.5 have their corners where YOLOX decodes from, and
    their centres where it matches.

    Example:
        >>> cells, boxes = torch.tensor([[8.0, 8, 16, 16]]), torch.tensor([[4.0, 6, 12, 22]])
        >>> coder = YOLOXCoder()
        >>> coder.encode(boxes, cells)
        tensor([[0.0000, 0.7500, 0.0000, 0.6931]])
        >>> coder.decode(coder.encode(boxes, cells), cells)
        tensor([[ 4.,  6., 12., 22.]])

    Reference:
        Ge et al., "YOLOX: Exceeding YOLO Series in 2021", 2021, arXiv:2107.08430, section 2.1,
        "Anchor-free".
    """

    spaces: ClassVar[frozenset[Space]] = frozenset({"boxes", "deltas"})

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """What the network would regress for `boxes`.

        Args:
            boxes: (..., 4) as (x1, y1, x2, y2), floating point.
            anchors: Cells of the same shape and unit.

        Returns:
            Codes (..., 4), without a unit; float16 and bfloat16 are computed in float32.

        Raises:
            TypeError: If a tensor is not floating point.
            ValueError: If the shapes differ or the last axis is not 4.
        """
        check_rows("boxes", boxes, anchors)
        centre, size = centre_and_size(boxes)
        _, side = centre_and_size(anchors)
        shift = (centre - widen(anchors)[..., :2]) / side
        return torch.cat([shift, (size / side).log()], dim=-1)

    def decode(self, regression: Tensor, anchors: Tensor) -> Tensor:
        """Boxes that the network's outputs mean; never inverted.

        Args:
            regression: Codes (..., 4), floating point.
            anchors: Cells of the same shape as (x1, y1, x2, y2).

        Returns:
            Boxes (..., 4), in the unit of the cells; float16 and bfloat16 are computed in float32.

        Raises:
            TypeError: If a tensor is not floating point.
            ValueError: If the shapes differ or the last axis is not 4.
        """
        check_rows("regression", regression, anchors)
        _, side = centre_and_size(anchors)
        code = widen(regression)
        centre = widen(anchors)[..., :2] + code[..., :2] * side
        return box_around(centre, side * bounded_exp(code[..., 2:]))
