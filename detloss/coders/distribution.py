"""The coder of generalized focal loss: each distance as a distribution over bins."""

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from detloss.boxes.checking import check_boxes
from detloss.coders.base import Coder
from detloss.coders.ltrb import boxes_at, side_distances
from detloss.kernels import BLOCK, Space
from detloss.registry import CODERS, Fraction
from detloss.tensors import check_floating, sync_is_free, wide_type


@CODERS.register("distribution")
class DistributionCoder(Coder):
    """Boxes as four distributions over bins 0, 1, ... of the distances of `LTRBCoder`.

    ``d = sum_k k softmax(z)_k``: z are the logits of a side, d its distance (left, top, right,
    bottom) from the centre of the anchor, in sides of the anchor. For the anchors of `grid_points`
    that unit is the stride. So the largest box has sides of ``2 (bins - 1)`` strides.

    Args:
        bins: Bins a side, at least 2. Code with a "reg_max" has 16 bins for 16 (YOLOv8), or 17
            (generalized focal loss).
        margin: Distances to learn are cut at ``bins - 1 - margin``: 0.01 in YOLOv8, 0.1 in
            mmdetection's generalized focal loss.

    Example:
        >>> anchors, boxes = torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[-4.0, 6, 12, 200]])
        >>> coder = DistributionCoder(bins=8)
        >>> coder.width, coder.encode(boxes, anchors)  # the top is below the centre: 0
        (32, tensor([[1.0000, 0.0000, 1.0000, 6.9900]]))
        >>> coder.decode(torch.zeros(1, 32), anchors)  # undecided: 3.5 sides of 8
        tensor([[-24., -24.,  32.,  32.]])

    Reference:
        Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388, equations 3 to 5.
    """

    spaces: ClassVar[frozenset[Space]] = frozenset({"boxes", "bins"})

    def __init__(self, *, bins: Annotated[int, Ge(2)] = 16, margin: Fraction = 0.01) -> None:
        super().__init__()
        self.bins = bins
        self.margin = margin

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Distances of the sides of `boxes` from the centres of `anchors`, in bins.

        Args:
            boxes: (..., 4) as (x1, y1, x2, y2), floating point.
            anchors: Boxes of the same shape and unit.

        Returns:
            Distances (..., 4), cut to [0, bins - 1 - margin]; float16 and bfloat16 are computed in
            float32.

        Raises:
            TypeError: If boxes are not floating point.
            ValueError: If the shapes differ or the last axis is not 4.
        """
        distances = side_distances(boxes, anchors, normalize=True)
        return distances.clamp(0, self.bins - 1 - self.margin)

    def decode(self, regression: Tensor, anchors: Tensor) -> Tensor:
        """Boxes at the expected distances; never inverted, and finite for any finite logits.

        Args:
            regression: Logits (..., 4 bins), floating point: the bins of the left side, of the
                top, of the right and of the bottom.
            anchors: Boxes (..., 4) as (x1, y1, x2, y2), a row of logits each.

        Returns:
            Boxes (..., 4), in the unit of the anchors; float16 and bfloat16 are computed in
            float32.

        Raises:
            TypeError: If a tensor is not floating point.
            ValueError: If `regression` has not 4 bins columns, or not as many rows as `anchors`.
        """
        check_floating("regression", regression)
        check_boxes("anchors", anchors)
        expected = (*anchors.shape[:-1], self.width)
        if regression.shape != expected:
            raise ValueError(
                f"regression must have shape {expected}, 4 x {self.bins} columns for each of "
                f"anchors, got {tuple(regression.shape)}"
            )
        return boxes_at(self._distances(regression), anchors, normalize=True)

    def _distances(self, regression: Tensor) -> Tensor:
        """The expected distances (..., 4), in bins.

        A matcher asks for those of all anchors, whose softmax would fill fresh memory as large as
        the logits: on a CPU they are computed a block after the other.
        """
        if regression.ndim < 2 or not sync_is_free(regression):
            return self._expected(regression)
        rows = max(BLOCK * regression.shape[-2] // max(regression.numel(), 1), 1)
        parts = torch.split(regression, rows, dim=-2)
        return torch.cat([self._expected(part) for part in parts], dim=-2)

    def _expected(self, regression: Tensor) -> Tensor:
        """(..., 4) the mean of the bins by their probabilities."""
        logits = torch.unflatten(regression, -1, (4, self.bins))
        p = logits.softmax(-1, dtype=wide_type(logits))
        bins = torch.arange(self.bins, dtype=p.dtype, device=p.device)
        # a sum, since autocast would take a matrix product in half precision
        parts = p * bins if p.requires_grad else p.mul_(bins)
        return parts.sum(-1)
