"""FCOS matching: a point is assigned to the smallest ground truth of its level that it lies in."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Len
from torch import Tensor

from detloss.boxes.planes import area_of_planes
from detloss.matchers.base import Assigned, Matcher
from detloss.matchers.images import Images
from detloss.matchers.tiles import largest_of_each_anchor
from detloss.registry import MATCHERS, Fraction, NonNegative, Positive

Convention = Literal["paper", "torchvision"]
SAME_LEVEL = 1.25
"""Sides that differ by less than this factor are one level's: corners are rounded numbers."""
LARGEST_AREA = 1e8
"""torchvision compares ``1e8 - area``: no object of a larger area is ever matched."""


@MATCHERS.register("fcos")
class FCOSMatcher(Matcher):
    """A point is positive inside a ground truth whose size is one for the point's level.

    The anchors are points: each is a square around its point, whose side is the stride of its
    level. Let l, t, r, b be the distances of a point to the sides of a ground truth, in strides.
    The point matches it if ``min(l, t, r, b) > 0`` and ``m1 <= max(l, t, r, b) <= m2``, and with a
    radius only if its distance to the centre is below the radius along both axes. ``m1`` is 0 for
    the points of the smallest stride, and ``m2`` is infinite for those of the largest: where there
    is one level, its points match ground truths of every size. A point that matches several ground
    truths is assigned to the one of the smallest area; of equal ones to the first.

    A ground truth may keep no point: it may lie between the points of its level, or smaller ones
    may take all that match it.

    Args:
        radius: Largest distance to the centre of the ground truth along each axis, in strides;
            None where all points inside match.
        level_range: (m1, m2), in strides, m1 < m2. Between levels whose strides differ by a
            factor of 2, m2 = 2 m1 leaves no gap.
        convention: "paper", or what an original does in another way. "torchvision": a farthest
            side at exactly m1 or m2 does not match, areas are compared as ``1e8 - area`` (in
            float32, areas within about 8 are equal), and larger areas match no point.
        ignore_overlap: Share of a background anchor's area inside one ignore region from which
            the anchor is ignored, in [0, 1].

    Raises:
        ValueError: If the ends of the range are not in order.

    Example:
        >>> points = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [0, 0, 16, 16]])
        >>> FCOSMatcher()(points, torch.tensor([[2.0, 2, 14, 14]])).positive
        tensor([ True,  True, False])

    Reference:
        Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019,
        arXiv:1904.01355, sections 3.1 and 3.2; the radius ("center sampling") is that of the
        journal version, arXiv:2006.09214.
    """

    def __init__(
        self,
        *,
        radius: Positive | None = None,
        level_range: Annotated[Sequence[NonNegative], Len(2, 2)] = (4.0, 8.0),
        convention: Convention = "paper",
        ignore_overlap: Fraction = 0.5,
    ) -> None:
        super().__init__()
        if not level_range[0] < level_range[1]:
            raise ValueError(f"level_range must be (m1, m2) with m1 < m2, got {level_range}")
        self.radius = radius
        self.level_range = tuple(float(end) for end in level_range)
        self.convention = convention
        self.ignore_overlap = ignore_overlap

    def match(self, images: Images) -> Assigned:
        """By positions alone; see `Matcher.match`.

        The levels are told apart by the sides of the anchors.
        """
        ends = _smallest_and_largest_side(images.anchors)

        def smallness(truths: Tensor, points: Tensor) -> Tensor:
            matched = self._matched(truths, points, *ends)
            return torch.where(matched, -self._area(truths), -torch.inf)

        largest, index = largest_of_each_anchor(
            images.anchors, images.truths, smallness, least=-torch.inf
        )
        ignored = images.in_ignore_region(self.ignore_overlap)
        return Assigned(index, largest > -torch.inf, ignored)

    def _matched(self, truths: Tensor, points: Tensor, smallest: Tensor, largest: Tensor) -> Tensor:
        """Whether a point matches a ground truth alone.

        Args:
            truths: Planes (4, G, K, 1).
            points: Planes (4, G, 1, size) of the squares around them.
            smallest: (B, 1, 1), the smallest side of all squares of an image.
            largest: (B, 1, 1), the largest.

        Returns:
            (G, K, size) bool.
        """
        x1, y1, x2, y2 = truths.unbind()
        x, y = (points[:2] + points[2:]).div_(2).unbind()
        side = points[2] - points[0]
        left, top, right, bottom = x - x1, y - y1, x2 - x, y2 - y
        nearest = torch.minimum(torch.minimum(left, right), torch.minimum(top, bottom))
        farthest = torch.maximum(torch.maximum(left, right), torch.maximum(top, bottom))

        matched = nearest > 0
        low, high = (side * end for end in self.level_range)
        low = torch.where(side < SAME_LEVEL * smallest, 0, low)
        high = torch.where(side * SAME_LEVEL > largest, torch.inf, high)
        if self.convention == "torchvision":
            matched &= (farthest > low) & (farthest < high)
        else:
            matched &= (farthest >= low) & (farthest <= high)
        if self.radius is not None:
            away = torch.maximum((x - (x1 + x2) / 2).abs_(), (y - (y1 + y2) / 2).abs_())
            matched &= away < self.radius * side
        return matched

    def _area(self, truths: Tensor) -> Tensor:
        """(...) what decides between the ground truths of a point, of planes (4, ...)."""
        area = area_of_planes(truths)
        if self.convention == "torchvision":
            area -= LARGEST_AREA  # rounds like its 1e8 - area, of which it takes the largest
            area = torch.where(area < -1e-5, area, torch.inf)
        return area


def _smallest_and_largest_side(points: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1, 1) of the squares (B, A, 4) with a side; infinity and 0 where there are none."""
    side = (points[..., 2] - points[..., 0]).clamp(min=0)[:, None]
    smallest = torch.where(side > 0, side, torch.inf).amin(2, keepdim=True)
    return smallest, side.amax(2, keepdim=True)
