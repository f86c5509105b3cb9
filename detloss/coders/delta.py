"""The delta coder of R-CNN: shift of the centre, logarithm of the scale."""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from annotated_types import Len
from torch import Tensor

from detloss.coders.base import MIN_SIDE, Coder, box_around, centre_and_size, check_rows
from detloss.kernels import Space
from detloss.registry import CODERS, Positive
from detloss.tensors import widen

MAX_LOG_SCALE = math.log(1000 / 16)
"""The largest ``dw`` or ``dh`` that is decoded, so that no wild prediction overflows ``exp``.

It lets an anchor of 16 pixels, the stride of the first region proposal networks, grow to 1000, the
longest side of their images. There is no bound below, where ``exp`` goes to 0.
"""


@CODERS.register("delta")
class DeltaCoder(Coder):
    """Boxes as deltas (x, y, w, h) from anchors.

    ``dx = wx (x - xa) / wa``, ``dy = wy (y - ya) / ha``, ``dw = ww ln(w / wa)``, ``dh = wh ln(h /
    ha)``: (x, y) is the centre, (w, h) the size, subscript a the anchor's. `decode` is the inverse,
    with ``dw / ww`` and ``dh / wh`` cut at ``ln(1000 / 16)``.

    Args:
        weights: (wx, wy, ww, wh), each > 0: how much an error in x, y, w, h counts. (10, 10, 5,
            5) is what other code calls stds (.1, .1, .2, .2).
        min_size: Floor of a side, in the unit of the boxes: a box without area has finite deltas.
        max_shift: How far from its anchor's centre a box is decoded at most, along x and along y,
            in the unit of the boxes; None for any distance. 32 pixels in YOLOF.

    Example:
        >>> anchors, boxes = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[1.0, 0, 11, 20]])
        >>> coder = DeltaCoder()
        >>> coder.encode(boxes, anchors)
        tensor([[0.1000, 0.5000, 0.0000, 0.6931]])
        >>> coder.decode(coder.encode(boxes, anchors), anchors)
        tensor([[ 1.,  0., 11., 20.]])

    Reference:
        Girshick et al., "Rich feature hierarchies" (R-CNN), CVPR 2014, arXiv:1311.2524, appendix
        C; Ren et al., "Faster R-CNN", NeurIPS 2015, arXiv:1506.01497, equation 2.
    """

    spaces: ClassVar[frozenset[Space]] = frozenset({"boxes", "deltas"})

    def __init__(
        self,
        *,
        weights: Annotated[Sequence[Positive], Len(4, 4)] = (1.0, 1.0, 1.0, 1.0),
        min_size: Positive = MIN_SIDE,
        max_shift: Positive | None = None,
    ) -> None:
        super().__init__()
        self.weights = tuple(float(w) for w in weights)
        self.min_size = min_size
        self.max_shift = max_shift

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Deltas that turn `anchors` into `boxes`.

        Args:
            boxes: (..., 4) as (x1, y1, x2, y2), floating point.
            anchors: Boxes of the same shape and unit.

        Returns:
            Deltas (..., 4), without a unit; float16 and bfloat16 are computed in float32.

        Raises:
            TypeError: If boxes are not floating point.
            ValueError: If the shapes differ or the last axis is not 4.
        """
        check_rows("boxes", boxes, anchors)
        centre, size = centre_and_size(boxes, self.min_size)
        anchor_centre, anchor_size = centre_and_size(anchors, self.min_size)
        shift = (centre - anchor_centre) / anchor_size
        deltas = torch.cat([shift, (size / anchor_size).log()], dim=-1)
        return _scaled(deltas, self.weights)

    def decode(self, regression: Tensor, anchors: Tensor) -> Tensor:
        """Boxes that deltas make of `anchors`; the inverse of `encode`, never inverted.

        Args:
            regression: Deltas (..., 4), floating point.
            anchors: Boxes of the same shape as (x1, y1, x2, y2).

        Returns:
            Boxes (..., 4), in the unit of the anchors; float16 and bfloat16 are computed in
            float32.

        Raises:
            TypeError: If a tensor is not floating point.
            ValueError: If the shapes differ or the last axis is not 4.
        """
        check_rows("regression", regression, anchors)
        anchor_centre, anchor_size = centre_and_size(anchors, self.min_size)
        deltas = _scaled(widen(regression), [1 / weight for weight in self.weights])
        shift = deltas[..., :2] * anchor_size
        if self.max_shift is not None:
            shift = shift.clamp(-self.max_shift, self.max_shift)
        size = anchor_size * deltas[..., 2:].clamp(max=MAX_LOG_SCALE).exp()
        return box_around(anchor_centre + shift, size)


def _scaled(deltas: Tensor, factors: Sequence[float]) -> Tensor:
    """`deltas` (..., 4), each column times its factor. To make a tensor of them is a host sync."""
    if all(factor == 1 for factor in factors):
        return deltas
    columns = zip(deltas.unbind(-1), factors, strict=True)
    return torch.stack([column * factor for column, factor in columns], dim=-1)
