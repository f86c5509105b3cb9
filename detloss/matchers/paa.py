"""Probabilistic anchor assignment: positives are the better half of two Gaussians of losses."""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from detloss.matchers.claims import ClaimMatcher, Contest, Owners, rank_in_row
from detloss.matchers.pairs import blocks_of_overlapping
from detloss.matchers.scene import Scene
from detloss.registry import MATCHERS, Fraction, PositiveInt
from detloss.tensors import has_float64, sync_is_free

STEPS = 100
"""Of expectation and maximization, at most."""
TOLERANCE = 1e-3
"""A mixture is done when its mean log-likelihood changes by less in a step."""
VARIANCE = 1e-6
"""It is added to every variance, so that none is 0."""


@MATCHERS.register("paa")
class PAAMatcher(ClaimMatcher):
    """Positives are the candidates whose losses belong to the lower of two Gaussians.

    Candidates of a ground truth are the anchors that overlap it most, if their IoU reaches
    `candidate`, and those that it overlaps most itself, equal ones included; one that several
    overlap most is a candidate of the last. The loss of a candidate is that of the criterion's
    classes and boxes, with the weights of these terms. Of each pyramid level the `topk` candidates
    of least loss stay, of equal ones the first.

    A mixture of two Gaussians is fitted to the losses of each ground truth by expectation and
    maximization, from means at the smallest and the largest loss, variances of 1 and equal shares,
    for at most 100 steps. Of the candidates that are likelier of the first Gaussian, in the order
    of their losses, those up to the one of highest density are positive. All other anchors are
    background, and so is the candidate of a ground truth that has only one.

    So a ground truth may keep no anchor: it has at most one candidate, or none is likelier of the
    first Gaussian.

    Args:
        candidate: IoU from which an anchor is a candidate, in [0, 1].
        topk: The candidates of a level.
        ignore_overlap: Share of an anchor's area in an ignore region from which it is ignored.

    Example:
        >>> x = torch.tensor([0.0, 1, 2, 4])
        >>> anchors = torch.stack([x, x * 0, x + 10, x * 0 + 10], 1)
        >>> loss = torch.tensor([[0.1, 0.15, 0.2, 3.0]])
        >>> PAAMatcher()(
        ...     anchors,
        ...     torch.tensor([[1.0, 0, 11, 10]]),
        ...     level_sizes=[4],
        ...     losses=lambda target_index, positive, first=0: loss,
        ... ).positive  # up to the middle of the lower ones
        tensor([ True,  True, False, False])

    Reference:
        Kim and Lee, "Probabilistic Anchor Assignment with IoU Prediction for Object Detection",
        ECCV 2020, arXiv:2007.08103, section 3.1 and algorithm 1.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"level_sizes", "losses"})
    needs_sizes = True

    def __init__(
        self,
        *,
        candidate: Fraction = 0.1,
        topk: PositiveInt = 9,
        ignore_overlap: Fraction = 0.5,
    ) -> None:
        super().__init__()
        self.candidate = candidate
        self.topk = topk
        self.ignore_overlap = ignore_overlap

    def owners(self, scene: Scene) -> Owners:
        """See `ClaimMatcher.owners`."""
        assert scene.level_sizes is not None
        owner = self._candidates(scene)
        loss = scene.losses_of(owner)

        row = torch.where(loss < torch.inf, owner, scene.rows)
        anchor = scene.owned(row)
        row, level, loss = row[anchor], scene.level[anchor], loss[anchor]
        levels = len(scene.level_sizes)
        kept = rank_in_row(row * levels + level, -loss) < self.topk
        row = torch.where(kept, row, scene.rows)

        # the losses of each ground truth, ascending; of what is left out in a row of its own
        width = self.topk * levels
        place = row * width + rank_in_row(row, -loss).clamp(max=width - 1)
        table = loss.new_full(((scene.rows + 1) * width,), torch.inf)
        table = table.scatter(0, place, torch.where(row < scene.rows, loss, torch.inf))
        positive = lower_ones(table.view(-1, width)).flatten()[place]
        row = torch.where(positive, row, scene.rows)
        return Owners(torch.full_like(owner, scene.rows).scatter(0, anchor, row))

    def _candidates(self, scene: Scene) -> Tensor:
        """(B A,) the ground truth of which each anchor is a candidate, R for none."""
        won = Contest(scene)
        forced = torch.full_like(won.owner, -1)
        for pairs in blocks_of_overlapping(scene, scene.anchors, scene.truths.boxes):
            overlap = scene.anchor_overlap(pairs.row, pairs.anchor)
            if pairs.valid is not None:
                overlap = torch.where(pairs.valid, overlap, 0)
            won.add(pairs.row, pairs.anchor, (overlap >= self.candidate) & (overlap > 0), overlap)
            row, anchor = (one.expand_as(overlap).flatten() for one in (pairs.row, pairs.anchor))
            overlap = overlap.flatten()
            best = overlap.new_zeros(scene.rows).scatter_reduce(0, row, overlap, "amax")
            row = torch.where((overlap == best[row]) & (overlap > 0), row, -1)
            forced.scatter_reduce_(0, anchor, row, "amax")
        return torch.where(forced < 0, won.owner, forced)


class Mixture(NamedTuple):
    """Two Gaussians for each row, all (R, 2)."""

    share: Tensor
    mean: Tensor
    variance: Tensor


def lower_ones(losses: Tensor) -> Tensor:
    """(R, K) bool, which losses are positives by the mixture of their row.

    Args:
        losses: (R, K), ascending in each row; inf where there are fewer.
    """
    if has_float64(losses.device):
        losses = losses.double()
    counts = losses < torch.inf
    number = counts.sum(1, keepdim=True)
    values = torch.where(counts, losses, 0)
    mean = torch.cat([values[:, :1], values.amax(1, keepdim=True)], 1)
    mixture = Mixture(torch.full_like(mean, 0.5), mean, torch.ones_like(mean))
    likelihood = torch.full_like(mean[:, :1], -torch.inf)
    goes_on = number > 1
    for _ in range(STEPS):
        if sync_is_free(losses) and not goes_on.any():
            break
        joint = _log_joint(values, mixture)
        total = joint.logsumexp(-1)
        share_of = (joint - total[..., None]).exp() * counts[..., None]
        fitted = zip(_fitted(values, share_of), mixture, strict=True)
        mixture = Mixture(*(torch.where(goes_on, new, old) for new, old in fitted))
        mean_of = torch.where(counts, total, 0).sum(1, keepdim=True) / number.clamp(min=1)
        goes_on &= (mean_of - likelihood).abs() >= TOLERANCE
        likelihood = mean_of
    joint = _log_joint(values, mixture)
    lower = counts & (joint[..., 0] >= joint[..., 1]) & (number > 1)
    density = torch.where(lower, joint.logsumexp(-1), -torch.inf)
    rank = lower.cumsum(1)  # among the lower ones, which need not be the smallest
    return lower & (rank <= rank.gather(1, density.argmax(1, keepdim=True)))


def _log_joint(values: Tensor, mixture: Mixture) -> Tensor:
    """(R, K, 2) logarithm of each Gaussian's share times its density."""
    share, mean, variance = (part[:, None] for part in mixture)
    squared = (values[..., None] - mean).square() / variance
    return share.log() - (squared + (2 * torch.pi * variance).log()) / 2


def _fitted(values: Tensor, share_of: Tensor) -> Mixture:
    """The mixture of largest likelihood where the values (R, K) belong to each by (R, K, 2)."""
    number = share_of.sum(1) + 10 * torch.finfo(values.dtype).eps
    mean = (share_of * values[..., None]).sum(1) / number
    square = (share_of * values.square()[..., None]).sum(1) / number
    share = number / number.sum(1, keepdim=True)
    return Mixture(share, mean, square - mean.square() + VARIANCE)
