"""Feature selective matching: by hand, and against a plain reading."""

import math

import pytest
import torch
from matching import N, X, said

import detloss
from detloss.boxes import grid_points
from detloss.matchers import FSAFMatcher
from detloss.tensors import without_host_sync

ANCHORS, LEVEL_SIZES = grid_points([(8, 8), (4, 4), (2, 2)], [8, 16, 32], offset=0)
ROW, OF_ROW = grid_points([(1, 4), (1, 2)], [8, 16])
"""Squares of 8 px with centres at x of 4, 12, 20, 28 and y of 4; of 16 px at 8, 24 and 8."""


def told(losses):
    """What tells these losses (A,) of an image."""
    return lambda index, positive, first=0: torch.where(positive, losses, 0)


def random_scene(count, classes, seed):
    """(count, 4) boxes, many in one another, their classes, and a loss for each anchor."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=generator) * 50 + 5
    half = torch.rand(count, 2, generator=generator).mul(2.5).exp() * 3
    labels = torch.randint(0, classes, (count,), generator=generator)
    losses = torch.rand(len(ANCHORS), generator=generator)
    return torch.cat([centre - half, centre + half], 1), labels, losses


def share_in(anchor, box, region):
    """The share of the anchor in the middle of the box."""
    share = 1.0
    for axis in range(2):
        low, high = anchor[axis], anchor[axis + 2]
        centre, half = (box[axis] + box[axis + 2]) / 2, (box[axis + 2] - box[axis]) / 2 * region
        share *= max(0.0, min(high, centre + half) - max(low, centre - half)) / (high - low)
    return share


def candidate_of(anchor, truths, labels, region, least):
    """The ground truth that has the anchor as a candidate, or none."""
    touched = [g for g, box in enumerate(truths) if share_in(anchor, box, region) > least]
    x, y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
    around = [
        g for g in touched if truths[g][0] < x < truths[g][2] and truths[g][1] < y < truths[g][3]
    ]
    if not around:
        return N
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in truths]
    owner = min(around, key=lambda g: area[g])
    return N if any(labels[g] == labels[owner] for g in touched if g != owner) else owner


def plainly(truths, labels, losses, region, least):
    """Candidates of each level; of each ground truth the level with the least mean loss."""
    truths, labels, losses = truths.tolist(), labels.tolist(), losses.tolist()
    owner = [candidate_of(a, truths, labels, region, least) for a in ANCHORS.tolist()]
    level_of = [level for level, size in enumerate(LEVEL_SIZES) for _ in range(size)]
    for g in range(len(truths)):
        means = []
        for level in range(len(LEVEL_SIZES)):
            mine = [losses[a] for a, o in enumerate(owner) if o == g and level_of[a] == level]
            means.append(sum(mine) / len(mine) if mine else math.inf)
        best = means.index(min(means))
        owner = [N if o == g and level_of[a] != best else o for a, o in enumerate(owner)]
    return owner


@pytest.mark.parametrize("classes", [1, 2, 9])
@pytest.mark.parametrize(("region", "least"), [(0.2, 0.01), (0.5, 0.3)])
@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_a_plain_reading_gives(region, least, classes, seed):
    truths, labels, losses = random_scene(6, classes, seed)
    matcher = FSAFMatcher(region=region, least=least)
    asked = {"gt_labels": labels, "level_sizes": LEVEL_SIZES, "losses": told(losses)}
    expected = plainly(truths, labels, losses, region, least)
    assert said(matcher(ANCHORS, truths, **asked)) == expected
    with without_host_sync():
        assert said(matcher(ANCHORS, truths, **asked)) == expected


def found(truths, *, labels=None, losses=(1.0, 1, 1, 1, 2, 2), **options):
    """The matches of the anchors of `ROW`."""
    given = torch.tensor(truths)
    of = torch.arange(len(given)) if labels is None else torch.tensor(labels)
    matches = FSAFMatcher(**options)(
        ROW, given, gt_labels=of, level_sizes=OF_ROW, losses=told(torch.tensor(losses))
    )
    return said(matches)


@pytest.mark.parametrize(
    ("truth", "options", "owners"),
    [
        pytest.param([0.0, 0, 16, 8], {}, [0, 0, N, N, N, N], id="from 6.4 to 9.6, in both"),
        pytest.param([0.0, 0, 12, 8], {}, [0, N, N, N, N, N], id="from 4.8 to 7.2"),
        pytest.param([0.0, 0, 15, 8], {}, [0, 0, N, N, N, N], id="from 6 to 9, 1.6 of 64 px^2"),
        pytest.param([0.0, 0, 15, 8], {"least": 0.03}, [0, N, N, N, N, N], id="are not 3 %"),
        pytest.param([0.0, 0, 20, 8], {}, [N, 0, N, N, N, N], id="from 8, on the edge"),
        pytest.param([0.0, 0, 20, 8], {"region": 0.3}, [0, 0, N, N, N, N], id="from 7"),
        pytest.param([4.5, 0, 11.5, 12], {}, [N, N, N, N, 0, N], id="two centres are outside"),
        pytest.param([0.0, 8, 40, 40], {}, [N, N, N, N, N, N], id="below all centres"),
        pytest.param([12.0, 4, 4, 0], {}, [N, N, N, N, N, N], id="inverted"),
    ],
)
def test_candidates_worked_by_hand(truth, options, owners):
    assert found([truth], **options) == owners


@pytest.mark.parametrize(
    ("losses", "owners"),
    [
        pytest.param([0.2, 0.4, 9, 9, 0.31, 9], [0, 0, N, N, N, N], id="0.3 is less than 0.31"),
        pytest.param([0.2, 0.4, 9, 9, 0.29, 9], [N, N, N, N, 0, N], id="0.3 is more than 0.29"),
        pytest.param([0.25, 0.25, 9, 9, 0.25, 9], [0, 0, N, N, N, N], id="of equal ones the first"),
        pytest.param([0.2, math.nan, 9, 9, 5.0, 9], [N, N, N, N, 0, N], id="NaN is the worst"),
        pytest.param([9, math.nan, 9, 9, math.inf, 9], [0, 0, N, N, N, N], id="all are the worst"),
    ],
)
def test_levels_worked_by_hand(losses, owners):
    assert found([[0.0, 0, 16, 9]], losses=losses) == owners


LARGE, SMALL, ASIDE = [0.0, 0, 24, 9], [9.0, 1, 15, 7], [17.0, 1, 23, 7]
"""All touch an anchor of the first level, the first two the same; the first one of the second."""


def test_who_has_a_common_candidate():
    assert found([LARGE, SMALL]) == [N, 1, N, N, 0, N]
    assert found([SMALL, LARGE]) == [N, 0, N, N, 1, N]
    assert found([SMALL, SMALL, LARGE]) == [N, 0, N, N, 2, N]


def test_a_candidate_in_the_middle_of_another_of_its_class_is_nobodys():
    assert found([LARGE, SMALL], labels=[3, 3]) == [N, N, N, N, 0, N]
    assert found([LARGE, SMALL], labels=[3, 2]) == [N, 1, N, N, 0, N]
    assert found([LARGE, ASIDE], labels=[3, 3]) == [N, 0, 1, N, N, N]


def test_an_ignore_region_is_no_rival_and_gets_nothing():
    truths = torch.tensor([LARGE, [8.0, 0, 16, 8]])
    matches = FSAFMatcher()(
        ROW,
        truths,
        gt_labels=torch.tensor([3, 3]),
        gt_ignore=torch.tensor([False, True]),
        level_sizes=OF_ROW,
        losses=told(torch.tensor([1.0, 1, 1, 1, 0, 0])),
    )
    assert said(matches) == [N, X, N, N, 0, N]


def test_a_criterion_tells_the_losses_of_classes_and_boxes():
    """Two levels of one anchor each; the class is sure on the second, the box fits on the first."""
    anchors = torch.tensor([[0.0, 0, 8, 8], [-4, -4, 12, 12]])
    criterion = {
        "matcher": {"type": "fsaf"},
        "coder": {"type": "boxes"},
        "classification": {"type": "sigmoid_cross_entropy"},
    }
    predictions = {
        "class_logits": torch.tensor([[[0.0], [2.0]]]),
        "box_regression": torch.tensor([[[0.0, 0, 8, 8], [0, 0, 8, 6]]]),
    }
    target = {"boxes": torch.tensor([[0.0, 0, 8, 8]]), "labels": torch.tensor([0])}
    for weight, expected in ((0.0, [False, True]), (1.0, [False, True]), (10.0, [True, False])):
        box = {"type": "iou", "weight": weight}
        output = detloss.build(criterion | {"box": box})(
            predictions, [target], anchors=anchors, level_sizes=[1, 1]
        )
        assert output.matches[0].positive.tolist() == expected
