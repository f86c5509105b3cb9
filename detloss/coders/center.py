"""The coder of CenterNet: where in its cell a centre lies, and a size in cells."""

from typing import ClassVar

import torch
from torch import Tensor

from detloss.coders.base import Coder, box_around, centre_and_size, check_rows
from detloss.kernels import Space
from detloss.registry import CODERS
from detloss.tensors import widen


@CODERS.register("center")
class CenterCoder(Coder):
    """Boxes as (x, y, w, h), the offset of the centre in a cell and the size, both in its sides.

    ``tx = (x - x1a) / wa``, ``ty = (y - y1a) / ha``, ``tw = w / wa``, ``th = h / ha``: (x, y) is
    the centre of the box and (w, h) its size, (x1a, y1a) the top left corner of the cell and (wa,
    ha) its sides, the stride. `decode` is the inverse. A head with two outputs, offset and size,
    gives both side by side.

    Example:
        >>> cells, boxes = torch.tensor([[8.0, 8, 12, 12]]), torch.tensor([[1.0, 6, 17, 16]])
        >>> coder = CenterCoder()
        >>> coder.encode(boxes, cells)
        tensor([[0.2500, 0.7500, 4.0000, 2.5000]])
        >>> coder.decode(coder.encode(boxes, cells), cells)
        tensor([[ 1.,  6., 17., 16.]])

    Reference:
        Zhou et al., "Objects as Points" (CenterNet), 2019, arXiv:1904.07850, section 3.
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
        return torch.cat([(centre - widen(anchors)[..., :2]) / side, size / side], dim=-1)

    def decode(self, regression: Tensor, anchors: Tensor) -> Tensor:
        """Boxes that the network's outputs mean.

        Args:
            regression: Codes (..., 4), floating point.
            anchors: Cells of the same shape as (x1, y1, x2, y2).

        Returns:
            Boxes (..., 4), in the unit of the cells; inverted where a size is negative. float16
            and bfloat16 are computed in float32.

        Raises:
            TypeError: If a tensor is not floating point.
            ValueError: If the shapes differ or the last axis is not 4.
        """
        check_rows("regression", regression, anchors)
        _, side = centre_and_size(anchors)
        code = widen(regression)
        centre = widen(anchors)[..., :2] + code[..., :2] * side
        return box_around(centre, code[..., 2:] * side)
