"""Matching by the middle of ground truths: FoveaBox."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from annotated_types import Len
from torch import Tensor

from detloss.boxes.planes import area_of_planes, centres, middle_of, share_area
from detloss.matchers.base import Assigned, Matcher
from detloss.matchers.images import Images
from detloss.matchers.tiles import largest_of_each_anchor
from detloss.registry import MATCHERS, Fraction, NonNegative

Range = Annotated[Sequence[NonNegative], Len(2, 2)]


@MATCHERS.register("center_region")
class CenterRegionMatcher(Matcher):
    """An anchor is positive if its centre lies in the middle of a ground truth.

    The middle is the region around the centre of the ground truth that has `region` times its
    sides; its edges belong to it. A part of it beyond the outermost centres of a pyramid level is
    moved to them, so that an object at the border of the image has anchors there. A ground truth of
    width w and height h has anchors on the levels whose range its scale ``sqrt(w h)`` is in; ranges
    may overlap. An anchor in the middle of several ground truths is assigned to that of the
    smallest area; of equal ones to the first. All others are background.

    A ground truth may keep no anchor: its middle may lie between the centres of anchors, its scale
    in no range, or smaller ones may take all that it would have. It claims no anchor that it does
    not overlap.

    Args:
        region: Sides of the middle, in sides of the ground truth, in [0, 1].
        scale_ranges: The least and the largest scale of each pyramid level, in the unit of the
            boxes and in the order of ``level_sizes``; None for all scales on all levels.
        ignore_overlap: Share of an anchor's area in an ignore region from which it is ignored.

    Raises:
        ValueError: If the ends of a range are not in order.

    Example:
        >>> points = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [0, 0, 16, 16]])
        >>> matcher = CenterRegionMatcher(scale_ranges=[[1, 16], [12, 64]])
        >>> matcher(points, torch.tensor([[0.0, 0, 14, 14]]), level_sizes=[2, 1]).positive
        tensor([False, False,  True])

    Reference:
        Kong et al., "FoveaBox: Beyond Anchor-Based Object Detection", IEEE Transactions on Image
        Processing 29, 2020, arXiv:1904.03797, sections III-C and III-D.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"level_sizes"})

    def __init__(
        self,
        *,
        region: Fraction = 0.4,
        scale_ranges: Sequence[Range] | None = None,
        ignore_overlap: Fraction = 0.5,
    ) -> None:
        super().__init__()
        self.region = region
        self.scale_ranges = scale_ranges and [[float(end) for end in ends] for ends in scale_ranges]
        self.ignore_overlap = ignore_overlap
        for ends in self.scale_ranges or ():
            if ends[0] > ends[1]:
                raise ValueError(
                    f"scale_ranges must be of a least and a largest scale each, got {ends}"
                )

    def match(self, images: Images) -> Assigned:
        """By positions alone, a level after the other; see `Matcher.match`.

        Raises:
            ValueError: If there is not a range for each level.
        """
        sizes = images.level_sizes
        assert sizes is not None
        ranges = self.scale_ranges or [[0.0, torch.inf]] * len(sizes)
        if len(ranges) != len(sizes):
            raise ValueError(
                f"scale_ranges must have one entry for each of {len(sizes)} levels, "
                f"got {len(ranges)}"
            )
        found = [
            self._match_level(anchors, images.truths, *ends)
            for anchors, ends in zip(
                torch.split(images.anchors, list(sizes), 1), ranges, strict=True
            )
            if anchors.shape[1]
        ]
        largest, index = (torch.cat(of_levels, 1) for of_levels in zip(*found, strict=True))
        ignored = images.in_ignore_region(self.ignore_overlap)
        return Assigned(index, largest > -torch.inf, ignored)

    def _match_level(
        self, anchors: Tensor, truths: Tensor, least: float, most: float
    ) -> tuple[Tensor, Tensor]:
        """What `largest_of_each_anchor` says of the anchors of a level."""
        middles = centres(anchors.movedim(-1, 0))[:, :, None]
        first, last = middles.amin(-1, keepdim=True), middles.amax(-1, keepdim=True)

        def smallness(truths: Tensor, anchors: Tensor) -> Tensor:
            """-area of the ground truths in whose middle an anchor is; -inf of the others."""
            area = area_of_planes(truths)
            scale = area.clamp(min=0).sqrt()
            centre, middle = centres(anchors), middle_of(truths, self.region)
            low, high = middle[:2].clamp(first, last), middle[2:].clamp(first, last)
            matched = ((centre >= low) & (centre <= high)).all(0)
            matched &= (truths[2:] > truths[:2]).all(0)
            matched &= (scale >= least) & (scale <= most)
            matched &= (anchors[2:] > anchors[:2]).all(0) & share_area(truths, anchors)
            return torch.where(matched, -area, -torch.inf)

        return largest_of_each_anchor(anchors, truths, smallness, least=-torch.inf)
