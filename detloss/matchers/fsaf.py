"""Feature selective matching: a ground truth has the pyramid level on which it is learned best."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from detloss.boxes.planes import area_of_planes, as_points, iof_of_planes, middle_of, share_area
from detloss.matchers.claims import ClaimMatcher, Contest, Owners
from detloss.matchers.pairs import Pairs, blocks_of_overlapping
from detloss.matchers.scene import Scene, take
from detloss.registry import MATCHERS, Fraction
from detloss.tensors import has_float64


@MATCHERS.register("fsaf")
class FSAFMatcher(ClaimMatcher):
    """Positives are the anchors in the middle of a ground truth, of the level of least mean loss.

    The middle is the region around the centre of the ground truth that has `region` times its
    sides. An anchor touches it if more than `least` of its area lies there. A candidate of a ground
    truth touches its middle, and has its own centre inside of the ground truth. Of several that of
    the smallest area has it, of equal ones the first. A candidate that touches the middle of
    another ground truth of the same class as well is nobody's.

    The loss of a candidate is that of the criterion's classes and boxes, with the weights of these
    terms. A ground truth keeps its candidates on the pyramid level where their mean loss is least,
    of equal ones the first. All other anchors are background.

    Args:
        region: Sides of the middle, in sides of the ground truth, in [0, 1].
        least: Share of an anchor's area above which it touches, in [0, 1].
        ignore_overlap: Share of an anchor's area in an ignore region from which it is ignored.

    Example:
        >>> anchors = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [0, 0, 16, 16]])
        >>> loss = torch.tensor([[0.5, 0.7, 0.4]])
        >>> FSAFMatcher()(
        ...     anchors,
        ...     torch.tensor([[0.0, 0, 16, 10]]),
        ...     gt_labels=torch.tensor([0]),
        ...     level_sizes=[2, 1],
        ...     losses=lambda target_index, positive, first=0: loss,
        ... ).positive
        tensor([False, False,  True])

    Reference:
        Zhu et al., "Feature Selective Anchor-Free Module for Single-Shot Object Detection" (FSAF),
        CVPR 2019, arXiv:1903.00621, "Online Feature Selection", as mmdetection has it.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gt_labels", "level_sizes", "losses"})

    def __init__(
        self, *, region: Fraction = 0.2, least: Fraction = 0.01, ignore_overlap: Fraction = 0.5
    ) -> None:
        super().__init__()
        self.region = region
        self.least = least
        self.ignore_overlap = ignore_overlap

    def owners(self, scene: Scene) -> Owners:
        """See `ClaimMatcher.owners`."""
        owner, level = self._candidates(scene), scene.level
        best = pad(_best_levels(scene, owner, level), (0, 1), value=-1)
        return Owners(torch.where(level == best[owner], owner, scene.rows))

    def _candidates(self, scene: Scene) -> Tensor:
        """(B A,) the ground truth of which each anchor is a candidate, R for none."""
        truths = scene.truths
        planes = truths.boxes.t()
        middle, smallness = middle_of(planes, self.region).t(), -area_of_planes(planes)
        won = Contest(scene)
        for pairs in blocks_of_overlapping(scene, scene.anchors, middle):
            anchors = as_points(scene.boxes_at(pairs.anchor)).movedim(-1, 0)
            inside = share_area(anchors, take(truths.boxes, pairs.row).movedim(-1, 0))
            touches = self._touches(scene, pairs, middle)
            won.add(pairs.row, pairs.anchor, inside & touches, smallness[pairs.row])

        assert truths.labels is not None
        labels, owner = pad(truths.labels, (0, 1)), won.owner
        rivals = torch.zeros_like(owner)
        for pairs in blocks_of_overlapping(scene, scene.anchors, middle):
            own = owner[pairs.anchor]
            rival = (labels[own] == labels[pairs.row]) & (own != pairs.row)
            rival &= self._touches(scene, pairs, middle)
            anchor = pairs.anchor.expand_as(rival).flatten()
            rivals.index_add_(0, anchor, rival.flatten().long())
        return torch.where(rivals > 0, scene.rows, owner)

    def _touches(self, scene: Scene, pairs: Pairs, middle: Tensor) -> Tensor:
        """Whether the anchors of pairs touch the middles (R, 4) of their ground truths."""
        anchors, middles = scene.boxes_at(pairs.anchor), take(middle, pairs.row)
        share = iof_of_planes(anchors.movedim(-1, 0), middles.movedim(-1, 0))
        touches = share > self.least
        return touches if pairs.valid is None else touches & pairs.valid


def _best_levels(scene: Scene, owner: Tensor, level: Tensor) -> Tensor:
    """(R,) the level of least mean loss of each ground truth's candidates; 0 without any."""
    assert scene.level_sizes is not None
    levels, loss = len(scene.level_sizes), scene.losses_of(owner)
    if has_float64(loss.device):  # the order in which a device adds them up must not decide
        loss = loss.double()
    place = torch.where(owner < scene.rows, owner * levels + level, scene.rows * levels)
    sums, counts = (
        loss.new_zeros(scene.rows * levels + 1).index_add_(0, place, values)
        for values in (loss, torch.ones_like(loss))
    )
    mean = (sums / counts).float().clamp(max=torch.finfo(torch.float32).max)
    mean = torch.where(counts > 0, mean, torch.inf)
    return mean[:-1].view(scene.rows, levels).argmin(1)
