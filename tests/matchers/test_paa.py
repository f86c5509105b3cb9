"""Probabilistic anchor assignment: by hand, and against a plain reading."""

import math

import pytest
import torch
from boxgen import random_boxes
from matching import N, said

import detloss
from detloss.boxes import pairwise_overlap
from detloss.matchers import PAAMatcher
from detloss.matchers.paa import lower_ones
from detloss.tensors import without_host_sync

LEVEL_SIZES = [90, 30]


def told(losses):
    """What tells these losses (A,) of an image."""
    return lambda index, positive, first=0: torch.where(positive, losses, 0)


def density(x, share, mean, variance):
    return share * math.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def better_ones(losses):
    """The places of the positives among ascending losses, in floats: two Gaussians by EM."""
    if len(losses) < 2:
        return []
    shares, means, variances = [0.5, 0.5], [losses[0], losses[-1]], [1.0, 1.0]

    def joint():
        return [
            [density(x, *one) for one in zip(shares, means, variances, strict=True)] for x in losses
        ]

    likelihood = -math.inf
    for _ in range(100):
        table = joint()
        belongs = [[one / sum(row) for one in row] for row in table]
        for one in (0, 1):
            number = sum(row[one] for row in belongs) + 10 * 2.0**-52
            means[one] = sum(row[one] * x for row, x in zip(belongs, losses, strict=True)) / number
            square = sum(row[one] * x * x for row, x in zip(belongs, losses, strict=True)) / number
            variances[one] = square - means[one] ** 2 + 1e-6
            shares[one] = number / len(losses)
        found = sum(math.log(sum(row)) for row in table) / len(losses)
        if abs(found - likelihood) < 1e-3:
            break
        likelihood = found
    table = joint()
    lower = [place for place, row in enumerate(table) if row[0] >= row[1]]
    if not lower:
        return []
    densest = max(lower, key=lambda place: sum(table[place]))
    return [place for place in lower if place <= densest]


def plainly(anchors, truths, losses, candidate, topk):
    overlap = pairwise_overlap(truths, anchors).tolist()
    owner = {}
    for anchor in range(len(anchors)):
        best = max(range(len(truths)), key=lambda row: overlap[row][anchor])
        if overlap[best][anchor] >= candidate:
            owner[anchor] = best
    for row, of_truth in enumerate(overlap):
        for anchor, value in enumerate(of_truth):
            if value == max(of_truth) > 0:
                owner[anchor] = row
    becomes = [N] * len(anchors)
    for row in range(len(truths)):
        stays, first = [], 0
        for size in LEVEL_SIZES:
            level = [a for a in range(first, first + size) if owner.get(a) == row]
            stays += sorted(level, key=losses.__getitem__)[:topk]
            first += size
        stays.sort(key=losses.__getitem__)
        for place in better_ones([losses[anchor] for anchor in stays]):
            becomes[stays[place]] = row
    return becomes


@pytest.mark.parametrize("candidate", [0.1, 0.4])
@pytest.mark.parametrize("topk", [3, 9])
def test_it_is_what_a_plain_reading_gives(candidate, topk):
    matcher = PAAMatcher(candidate=candidate, topk=topk)
    for seed in range(6):
        anchors = random_boxes(120, seed=seed, dtype=torch.float32)
        truths = random_boxes(9, seed=seed + 100, dtype=torch.float32)
        losses = torch.rand(120, generator=torch.Generator().manual_seed(seed)) ** 2 * 4
        given = {"level_sizes": LEVEL_SIZES, "losses": told(losses)}
        matches = matcher(anchors, truths, **given)
        assert said(matches) == plainly(anchors, truths, losses.tolist(), candidate, topk)
        with without_host_sync():
            assert said(matcher(anchors, truths, **given)) == said(matches)


@pytest.mark.parametrize(
    ("losses", "positives"),
    [
        pytest.param([0.1, 0.2, 0.25, 3.0, 3.1], 2, id="up to the one next to their mean, 0.18"),
        pytest.param([0.5, 4.0], 1, id="one each"),
        pytest.param([0.5], 0, id="a single one has no mixture"),
        pytest.param([], 0, id="none"),
        pytest.param([1.0, 1.0, 1.0], 1, id="all equal: up to the first of highest density"),
    ],
)
def test_mixtures_worked_by_hand(losses, positives):
    table = torch.full((1, 6), torch.inf)
    table[0, : len(losses)] = torch.tensor(losses)
    assert lower_ones(table).tolist() == [[place < positives for place in range(6)]]


@pytest.mark.parametrize("seed", range(8))
def test_a_mixture_does_not_depend_on_the_rows_beside_it(seed):
    generator = torch.Generator().manual_seed(seed)
    rows = [sorted(torch.rand(n, generator=generator).tolist()) for n in (2, 5, 9, 18, 27)]
    table = torch.full((5, 27), torch.inf)
    for row, losses in enumerate(rows):
        table[row, : len(losses)] = torch.tensor(losses)
    for row, found in enumerate(lower_ones(table)):
        expected = better_ones(table[row, : len(rows[row])].tolist())
        assert found.nonzero().view(-1).tolist() == expected


SQUARE = torch.tensor([[0.0, 0, 10, 10]])


def test_only_the_best_of_each_level_stay():
    """The last is the better one of the two lower ones, but not the best of its level."""
    losses = told(torch.tensor([0.3, 5.0, 0.1, 0.2]))
    for topk, owners in (1, [N, N, 0, N]), (2, [N, N, 0, 0]):
        matches = PAAMatcher(topk=topk)(
            SQUARE.repeat(4, 1), SQUARE, level_sizes=[2, 2], losses=losses
        )
        assert said(matches) == owners


def test_a_loss_that_is_no_number_is_no_candidate():
    losses = told(torch.tensor([0.1, torch.nan, 4.0, torch.inf]))
    matches = PAAMatcher()(SQUARE.repeat(4, 1), SQUARE, level_sizes=[4], losses=losses)
    assert said(matches) == [0, N, N, N]


def test_a_criterion_tells_the_losses_of_its_classes_and_boxes():
    criterion = detloss.build(
        {
            "matcher": {"type": "paa"},
            "classification": {"type": "sigmoid_focal", "weight": 2.0},
            "box": {"type": "l1", "weight": 3.0},
            "iou_score": {"type": "sigmoid_cross_entropy"},
        }
    )
    anchors = random_boxes(40, seed=1, dtype=torch.float32)
    targets = [
        {
            "boxes": random_boxes(count, seed=count, dtype=torch.float32),
            "labels": torch.arange(count),
        }
        for count in (3, 0, 4)
    ]
    generator = torch.Generator().manual_seed(0)
    predictions = {
        "class_logits": torch.randn(3, 40, 4, generator=generator),
        "box_regression": torch.randn(3, 40, 4, generator=generator),
        "iou_score": torch.randn(3, 40, generator=generator),
    }
    seen = []

    class Recording(PAAMatcher):
        def batch(self, *boxes, losses=None, **given):
            def told(index, positive, first=0):
                seen.append((index, positive, losses(index, positive, first)))
                return seen[-1][2]

            return super().batch(*boxes, losses=told, **given)

    criterion.matcher = Recording()
    criterion(predictions, targets, anchors=anchors, level_sizes=[40])
    ((index, positive, losses),) = seen
    assert positive.any(1).tolist() == [True, False, True]
    encoded = criterion.coder.encode
    for image, anchor in positive.nonzero().tolist():
        truth = index[image, anchor]
        label = targets[image]["labels"][truth][None]
        focal = detloss.classification.sigmoid_focal_loss(
            predictions["class_logits"][image, anchor][None], label, reduction="sum"
        )
        code = encoded(targets[image]["boxes"][truth], anchors[anchor])
        l1 = (predictions["box_regression"][image, anchor] - code).abs().sum()
        assert losses[image, anchor].item() == pytest.approx((2 * focal + 3 * l1).item(), rel=1e-5)
    assert (losses[~positive] == 0).all()
    assert not losses.requires_grad


def test_a_matcher_of_losses_needs_a_term_that_has_one():
    config = {"matcher": {"type": "paa"}, "objectness": {"type": "sigmoid_cross_entropy"}}
    with pytest.raises(ValueError, match="looks at losses of classes or boxes; no term has one"):
        detloss.build(config)


def test_asks_for_losses():
    with pytest.raises(ValueError, match="matcher paa needs losses, got None"):
        PAAMatcher()(SQUARE, SQUARE, level_sizes=[1])
