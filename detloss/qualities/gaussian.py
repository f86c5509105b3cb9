"""How near the cell of an anchor lies to that of an object's centre."""

from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from detloss.boxes.planes import centres
from detloss.qualities.base import HeatQuality
from detloss.registry import QUALITIES


@QUALITIES.register("gaussian")
class GaussianQuality(HeatQuality):
    """``exp(-(dx^2 + dy^2) / (2 s^2))``, ``s = (2 r + 1) / 6``, up to r cells away.

    The anchors are the cells of a grid: dx and dy are cells between the anchor and the cell in
    which the centre of the ground truth lies. r is the whole part of what solves ``(w - 2 r) (h - 2
    r) = min_overlap w h``, w and h the sides of the ground truth in cells: moved inwards by it on
    all sides, the box still overlaps the ground truth by `min_overlap`. The quality is 1 in the
    cell of the centre alone, and 0 beyond r in x or y.

    As the label of classes over all anchors it is a heat map, see `HeatQuality`.

    Args:
        min_overlap: The IoU at r, in (0, 1]; at 1 the cell of the centre is alone.

    Example:
        A box of 10 x 10 cells has r = 2, and ``2 s^2 = 25 / 18``:

        >>> from types import SimpleNamespace
        >>> x = torch.tensor([20.0, 24, 28, 32])
        >>> cells = torch.stack([x, x * 0 + 20, x + 4, x * 0 + 24], 1)
        >>> truths = torch.tensor([[2.0, 2, 42, 42]]).repeat(4, 1)
        >>> GaussianQuality()(SimpleNamespace(anchors=cells, truth_boxes=truths))
        tensor([1.0000, 0.4868, 0.0561, 0.0000])

    Reference:
        Law and Deng, "CornerNet: Detecting Objects as Paired Keypoints", ECCV 2018,
        arXiv:1808.01244, section 3.2; Zhou et al., "Objects as Points" (CenterNet), 2019,
        arXiv:1904.07850, section 3.
    """

    def __init__(self, *, min_overlap: Annotated[float, Interval(gt=0, le=1)] = 0.3) -> None:
        super().__init__()
        self.min_overlap = min_overlap

    def of_planes(self, truths: Tensor, anchors: Tensor) -> Tensor:
        """See `HeatQuality.of_planes`."""
        size, side = truths[2:] - truths[:2], anchors[2:] - anchors[:2]
        real = (size > 0).all(0) & (side > 0).all(0)
        side = torch.where(side > 0, side, 1)
        radius = self._radius(size / side).floor_()
        away = (centres(truths) - anchors[:2]).div_(side).floor_().abs_()
        near = real & (away <= radius).all(0)
        variance = radius.mul_(2).add_(1).div_(6).square_()
        heat = away.square_().sum(0).div_(variance).div_(-2).exp_()
        return torch.where(near, heat, 0)

    def _radius(self, size: Tensor) -> Tensor:
        """(...) of sides (2, ...); the root is that of ``(w + h)^2 - 4 (1 - min_overlap) w h``."""
        across, down = size.unbind()
        area = across * down
        root = (across - down).square_().add_(area, alpha=4 * self.min_overlap).sqrt_()
        return area.mul_(1 - self.min_overlap).div_(root.add_(across).add_(down))
