"""How ground truths choose anchors by what is predicted there: candidates, the best few, one each.

    Scene                 scene.py  a batch as rows of ground truths and a flat list of anchors
      overlapping         pairs.py  the pairs of ground truth and anchor that come into question
      Pairs.cheapest      pairs.py  the best few of each ground truth
      contest                       an anchor that several have chosen goes to one of them
    Assigned              base.py   of each image

A technique says these steps in `ClaimMatcher.owners`.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from detloss.matchers import tiles
from detloss.matchers.base import Assigned, Matcher, of_one_kind
from detloss.matchers.images import Images
from detloss.matchers.scene import Measure, Scene
from detloss.registry import Fraction
from detloss.tensors import sync_is_free


class Contest:
    """Who gets an anchor that several have chosen: the highest priority, of equal ones the first.

    Attributes:
        owner: (B A,) the ground truth that each anchor goes to, R for none.
        best: (B A,) its priority, -inf for none.
    """

    def __init__(self, scene: Scene) -> None:
        count, like = scene.images * scene.size, scene.anchors
        self.rows = scene.rows
        self.owner = torch.full((count,), scene.rows, device=like.device)
        self.best = like.new_full((count,), -torch.inf)

    def add(self, row: Tensor, anchor: Tensor, chosen: Tensor, priority: Tensor) -> None:
        """Some ground truths take part, all of them behind those before.

        Args:
            row: Rows of ground truths.
            anchor: Numbers of anchors, in a shape that `row` broadcasts with.
            chosen: Whether the ground truth has chosen that anchor, bool.
            priority: Like `chosen`, not NaN where chosen.
        """
        flat = anchor.expand_as(chosen).flatten()
        value = torch.where(chosen, priority, -torch.inf).flatten().to(self.best.dtype)
        best = torch.full_like(self.best, -torch.inf).scatter_reduce_(0, flat, value, "amax")
        wins = chosen.flatten() & (value == best[flat])
        row = torch.where(wins, row.expand_as(chosen).flatten(), self.rows)
        better = best > self.best  # of equal ones those before stay
        self.owner.masked_fill_(better, self.rows).scatter_reduce_(
            0, flat, torch.where(better[flat], row, self.rows), "amin"
        )
        torch.maximum(best, self.best, out=self.best)


def contest(scene: Scene, row: Tensor, anchor: Tensor, chosen: Tensor, priority: Tensor) -> Tensor:
    """(B A,) the ground truth that each anchor goes to, R for none; see `Contest`."""
    held = Contest(scene)
    held.add(row, anchor, chosen, priority)
    return held.owner


def first_to_choose(scene: Scene, row: Tensor, anchor: Tensor, chosen: Tensor) -> Tensor:
    """(B A,) the first ground truth that has chosen each anchor, R for none; see `Contest.add`."""
    row = torch.where(chosen, row, scene.rows).flatten()
    nobody = row.new_full((scene.images * scene.size,), scene.rows)
    return nobody.scatter_reduce_(0, anchor.expand_as(chosen).flatten(), row, "amin")


def give_to_best_of_all(
    scene: Scene, owner: Tensor, anchor: Tensor, chosen: Tensor, priority: Measure
) -> Tensor:
    """`owner`, but an anchor that several have chosen goes to the first of highest priority.

    It is that of all ground truths of its image, whether they have chosen it or not.

    Args:
        scene: The batch.
        owner: (B A,) what `contest` says.
        anchor: (R, k) as `contest` takes it.
        chosen: (R, k) as `contest` takes it.
        priority: Of the ground truths (e, m) and anchors (e, 1), not NaN; -inf for a ground truth
            that it cannot go to.
    """
    flat = anchor.flatten()
    count = torch.zeros_like(owner).scatter_add(0, flat, chosen.flatten().long())
    if sync_is_free(count):
        flat = (count > 1).nonzero().view(-1)
    place = torch.arange(scene.most, device=anchor.device)
    for some in torch.split(flat, tiles.rows_of_a_block(scene.anchors, len(flat), scene.most)):
        row = (some // scene.size * scene.most)[:, None] + place
        values = torch.where(scene.truths.claims[row], priority(row, some[:, None]), -torch.inf)
        highest = values.amax(1, keepdim=True)
        best = torch.where((values == highest) & (highest > -torch.inf), row, scene.rows).amin(1)
        best = torch.where((count[some] > 1) & (best < scene.rows), best, owner[some])
        owner = owner.scatter(0, some, best)
    return owner


def rank_in_row(row: Tensor, values: Tensor) -> Tensor:
    """(P,) how many of the same row come before each: larger values, of equal ones the first."""
    order = values.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    sorted_row = row[order]
    place = torch.arange(len(row), device=row.device)
    rank = place - torch.searchsorted(sorted_row, sorted_row)
    return torch.empty_like(place).scatter_(0, order, rank)


class Owners(NamedTuple):
    """The ground truth that each anchor goes to.

    Attributes:
        row: (B A,) its row, R for none.
        score: (B A,) the matcher's own measure of positives, or None.
        pairs: Of each image, as in `Assigned`.
        is_pair: Of each image, as in `Assigned`.
    """

    row: Tensor
    score: Tensor | None = None
    pairs: Sequence[Tensor] | None = None
    is_pair: Sequence[Tensor] | None = None


class ClaimMatcher(Matcher):
    """A matcher whose ground truths choose anchors; a subclass implements `owners`.

    A ground truth that is an ignore region, or has no area, claims nothing.
    """

    ignore_overlap: Fraction = 0.5

    @abstractmethod
    def owners(self, scene: Scene) -> Owners:
        """The ground truth of each anchor."""
        raise NotImplementedError

    def match(self, images: Images) -> Assigned:
        """See `Matcher.match`."""
        scene = Scene.of(images)
        found = self.owners(scene)
        shape = (scene.images, scene.size)
        return Assigned(
            target_index=(found.row % scene.most).view(shape),
            positive=(found.row < scene.rows).view(shape),
            ignored=images.in_ignore_region(self.ignore_overlap),
            score=None if found.score is None else found.score.view(shape),
            pairs=found.pairs,
            is_pair=found.is_pair,
        )

    def _takes_batch(self, anchors: Sequence[Tensor], gt_boxes: Sequence[Tensor]) -> bool:
        # on a CPU too: few pairs are computed in any case
        return not torch.compiler.is_compiling() and of_one_kind(anchors, gt_boxes)
