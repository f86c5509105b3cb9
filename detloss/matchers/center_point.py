"""Matching by the centres of ground truths: CenterNet."""

from typing import Literal

import torch
from torch import Tensor

from detloss.boxes.planes import area_of_planes, has_centre
from detloss.matchers.base import Assigned, Matcher
from detloss.matchers.images import Images
from detloss.matchers.tiles import largest_of_each_anchor
from detloss.registry import MATCHERS, Fraction


@MATCHERS.register("center_point")
class CenterPointMatcher(Matcher):
    """An anchor is positive if the centre of a ground truth lies in it, background if none does.

    The anchors are the cells of a grid, so that each ground truth has one anchor of a level; a
    centre on the edge of two cells lies in the lower right one. A ground truth keeps none where its
    centre lies in no cell, or another has its cell.

    Args:
        contested: Which ground truth has a cell in which several have their centre: the "smallest"
            by area, of equal ones the first; or the "last".
        ignore_overlap: Share of an anchor's area in an ignore region from which it is ignored.

    Example:
        >>> cells = torch.tensor([[0.0, 0, 4, 4], [4, 0, 8, 4]])
        >>> CenterPointMatcher()(cells, torch.tensor([[0.0, -6, 10, 8]])).positive
        tensor([False,  True])

    Reference:
        Zhou et al., "Objects as Points" (CenterNet), 2019, arXiv:1904.07850, section 3.
    """

    def __init__(
        self,
        *,
        contested: Literal["smallest", "last"] = "smallest",
        ignore_overlap: Fraction = 0.5,
    ) -> None:
        super().__init__()
        self.contested = contested
        self.ignore_overlap = ignore_overlap

    def match(self, images: Images) -> Assigned:
        """By positions alone; see `Matcher.match`."""
        last = self.contested == "last"

        def rank(truths: Tensor, cells: Tensor) -> Tensor:
            """What decides between the ground truths of a cell, -inf for the others."""
            order = torch.zeros_like(truths[0]) if last else -area_of_planes(truths)
            return torch.where(has_centre(truths, cells), order, -torch.inf)

        truths = images.truths.flip(1) if last else images.truths  # of equal ones the first
        highest, index = largest_of_each_anchor(images.anchors, truths, rank, least=-torch.inf)
        if last:
            index = truths.shape[1] - 1 - index
        ignored = images.in_ignore_region(self.ignore_overlap)
        return Assigned(index, highest > -torch.inf, ignored)
