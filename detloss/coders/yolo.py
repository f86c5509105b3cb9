"""The coder of YOLOv3 and YOLOv5: a centre within reach of its cell, a size from an anchor box."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from detloss.coders.base import Coder, bounded_exp, box_around, centre_and_size, check_rows
from detloss.kernels import Space
from detloss.registry import CODERS, Positive
from detloss.tensors import check_floating, widen

EPS = 1e-6
"""How near to 0 and 1 the sigmoid of a target comes, whose logit is infinite at both."""


@CODERS.register("yolo")
class YOLOCoder(Coder):
    """Boxes as raw outputs (x, y, w, h) of a cell for an anchor box around the cell's centre.

    With ``p = sigmoid(t)`` of an output t, version v3, which is v2's too, means::

        x = xc + s px               w = wa exp(tw)
        y = yc + s py               h = ha exp(th)

    and v5, which is v7's too::

        x = xc + s (2 px - 0.5)     w = wa (2 pw)^2
        y = yc + s (2 py - 0.5)     h = ha (2 ph)^2

    (x, y) is the centre of the box and (w, h) its size, (wa, ha) the size of the anchor, (xc, yc)
    the top left corner of the cell and s its side, the stride. `encode` is the inverse, with p cut
    to [1e-6, 1 - 1e-6]: a box out of reach gets the code of one at the edge of reach. A
    cross-entropy on x and y has px and py as targets, the sigmoids of what is encoded. `decode`
    cuts ``exp`` at 10,000.

    Args:
        version: "v3" or "v5".
        strides: Stride of each pyramid level, in the order of ``level_sizes``. None where the
            anchors are the cells themselves.

    Example:
        A cell from (16, 16) to (24, 24), with an anchor of 10 x 20 around its centre:

        >>> anchors, strides = torch.tensor([[15.0, 10, 25, 30]]), torch.tensor([8.0])
        >>> coder = YOLOCoder(version="v3", strides=[8, 16, 32])
        >>> coder.decode(torch.zeros(1, 4), anchors, strides)
        tensor([[15., 10., 25., 30.]])
        >>> box = torch.tensor([[12.0, 12, 24, 28]])  # its centre a quarter into the cell
        >>> coder.encode(box, anchors, strides)
        tensor([[-1.0986,  0.0000,  0.1823, -0.2231]])
        >>> coder.decode(coder.encode(box, anchors, strides), anchors, strides)
        tensor([[12., 12., 24., 28.]])

    Reference:
        Redmon and Farhadi, "YOLOv3: An Incremental Improvement", 2018, arXiv:1804.02767, section
        2.1; Jocher, "YOLOv5 by Ultralytics", 2020, doi:10.5281/zenodo.3908559.
    """

    spaces: ClassVar[frozenset[Space]] = frozenset({"boxes", "deltas"})

    def __init__(
        self,
        *,
        version: Literal["v3", "v5"] = "v5",
        strides: Sequence[Positive] | None = None,
    ) -> None:
        super().__init__()
        self.version = version
        self.strides = None if strides is None else [float(stride) for stride in strides]

    def encode(self, boxes: Tensor, anchors: Tensor, strides: Tensor | None = None) -> Tensor:
        """What the network would regress for `boxes`.

        Args:
            boxes: (..., 4) as (x1, y1, x2, y2), floating point.
            anchors: Boxes of the same shape and unit, around the centre of their cell.
            strides: (...) side of each cell in that unit; None where the anchors are the cells.

        Returns:
            Codes (..., 4), without a unit; float16 and bfloat16 are computed in float32.

        Raises:
            TypeError: If a tensor is not floating point.
            ValueError: If the shapes differ, the last axis is not 4, or there are `strides`
                among the options and none here.
        """
        check_rows("boxes", boxes, anchors)
        corner, side, anchor_size = self._cells(anchors, strides)
        centre, size = centre_and_size(boxes)
        offset, ratio = (centre - corner) / side, size / anchor_size
        if self.version == "v3":
            return torch.cat([offset.logit(EPS), ratio.log()], dim=-1)
        return torch.cat([(offset + 0.5) / 2, ratio.sqrt() / 2], dim=-1).logit(EPS)

    def decode(self, regression: Tensor, anchors: Tensor, strides: Tensor | None = None) -> Tensor:
        """Boxes that the network's outputs mean; never inverted.

        Args:
            regression: Codes (..., 4), floating point.
            anchors: Boxes of the same shape as (x1, y1, x2, y2), around the centre of their cell.
            strides: (...) side of each cell, in the unit of the anchors; None where the anchors
                are the cells.

        Returns:
            Boxes (..., 4), in the unit of the anchors; float16 and bfloat16 are computed in
            float32.

        Raises:
            TypeError: If a tensor is not floating point.
            ValueError: If the shapes differ, the last axis is not 4, or there are `strides`
                among the options and none here.
        """
        check_rows("regression", regression, anchors)
        corner, side, anchor_size = self._cells(anchors, strides)
        code = widen(regression)
        if self.version == "v3":
            offset, ratio = code[..., :2].sigmoid(), bounded_exp(code[..., 2:])
        else:
            doubled = 2 * code.sigmoid()
            offset, ratio = doubled[..., :2] - 0.5, doubled[..., 2:].square()
        return box_around(corner + offset * side, anchor_size * ratio)

    def _cells(self, anchors: Tensor, strides: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Top left corners and sides of the cells, and sizes of the anchors, each (..., 2)."""
        centre, size = centre_and_size(anchors)
        if strides is None and self.strides is None:
            return centre - size / 2, size, size
        got = None if strides is None else tuple(strides.shape)
        if strides is None or got != anchors.shape[:-1]:
            raise ValueError(
                f"strides must have shape {tuple(anchors.shape[:-1])}, one for each of anchors, "
                f"got {got}"
            )
        check_floating("strides", strides)
        side = widen(strides)[..., None].expand_as(size)
        return centre - side / 2, side, size
