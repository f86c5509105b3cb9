"""Task-aligned matching against a plain reading of its conventions, and by hand."""

import math

import pytest
import torch
from matching import N, said

from detloss.boxes import grid_points, pairwise_overlap
from detloss.matchers import TaskAlignedMatcher
from detloss.tensors import without_host_sync

POINTS, _ = grid_points([(8, 8), (4, 4)], [8, 16])
CONVENTIONS = ["tood", "ppyoloe", "ultralytics"]


def scene(count, *, seed=0, classes=3):
    """Ground truths of 5 to 45 pixels, and predictions that overlap some of them."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    centre, side = uniform(count, 2) * 64, 5 + uniform(count, 2) * 40
    truths = torch.cat([centre - side / 2, centre + side / 2], 1)
    middle = (POINTS[:, :2] + POINTS[:, 2:]) / 2
    reach = uniform(2, len(POINTS), 2) * 25
    predicted = torch.cat([middle - reach[0], middle + reach[1]], 1)
    return truths, {
        "gt_labels": torch.randint(0, classes, (count,), generator=generator),
        "class_logits": torch.randn(len(POINTS), classes, generator=generator) * 2,
        "pred_boxes": predicted,
    }


def plainly(matcher, truths, gt_labels, class_logits, pred_boxes):
    """The owner of each anchor and its score, by loops over ground truths and anchors."""
    overlap = pairwise_overlap(truths, pred_boxes, kind=matcher.overlap).clamp(min=0)
    probability = class_logits.sigmoid()[:, gt_labels].t()
    aligned = probability**matcher.alpha * overlap**matcher.beta
    eps = {"tood": 1e-7}.get(matcher.convention, 1e-9)
    taken = [[] for _ in POINTS]
    inside = torch.zeros(len(truths), len(POINTS), dtype=torch.bool)
    for row, (x1, y1, x2, y2) in enumerate(truths.tolist()):
        wider, higher = max(matcher.min_side - (x2 - x1), 0), max(matcher.min_side - (y2 - y1), 0)
        for anchor, (left, top, right, bottom) in enumerate(POINTS.tolist()):
            x, y = (left + right) / 2, (top + bottom) / 2
            across, down = min(x - x1, x2 - x) + wider / 2, min(y - y1, y2 - y) + higher / 2
            margin = 0.01 if matcher.convention == "tood" else 1e-9
            inside[row, anchor] = min(across, down) > margin
        candidates = range(len(POINTS))
        if matcher.convention != "tood":
            candidates = [anchor for anchor in candidates if inside[row, anchor]]
        best = sorted(candidates, key=lambda anchor: -aligned[row, anchor])[: matcher.topk]
        for anchor in best:
            if aligned[row, anchor] > 0 and inside[row, anchor]:
                taken[anchor].append(row)
    owner = [max(rows, key=lambda row: overlap[row, anchor]) if rows else None
             for anchor, rows in enumerate(taken)]  # fmt: skip
    for anchor, rows in enumerate(taken):
        if len(rows) > 1 and matcher.convention != "tood":
            rows = [row for row in range(len(truths))
                    if matcher.convention == "ppyoloe" or inside[row, anchor]]  # fmt: skip
            owner[anchor] = max(rows, key=lambda row: overlap[row, anchor])
    if matcher.topk_kept is not None:
        for row in range(len(truths)):
            own = [anchor for anchor in range(len(POINTS)) if owner[anchor] == row]
            own.sort(key=lambda anchor: -aligned[row, anchor])
            for anchor in own[matcher.topk_kept :]:
                owner[anchor] = None
    score = torch.zeros(len(POINTS))
    for row in range(len(truths)):
        own = [anchor for anchor in range(len(POINTS)) if owner[anchor] == row]
        if own:
            largest = aligned[row, own].max() + eps
            score[own] = aligned[row, own] / largest * overlap[row, own].max()
    return [N if row is None else row for row in owner], score


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"topk": 3, "overlap": "ciou", "alpha": 0.5},
        {"topk": 10, "alpha": 0.5, "overlap": "ciou", "min_side": 16.0},
        {"topk": 7, "topk_kept": 1},
        {"topk": 9, "topk_kept": 3, "beta": 2.0},
    ],
    ids=repr,
)
def test_it_is_what_a_plain_reading_gives(convention, options):
    matcher = TaskAlignedMatcher(convention=convention, **options)
    positives = 0
    for seed in range(8):
        truths, predictions = scene(6, seed=seed)
        matches = matcher(POINTS, truths, **predictions)
        expected, score = plainly(matcher, truths, **predictions)
        assert said(matches) == expected
        torch.testing.assert_close(matches.score, score)
        with without_host_sync():
            assert said(matcher(POINTS, truths, **predictions)) == expected
        positives += int(matches.positive.sum())
    assert positives > 40


def test_the_best_positive_has_the_largest_overlap_for_its_label():
    """The alignment of the two anchors is 0.5 x 1 and 0.5 x (1/2)^2; overlaps 1 and 1/2."""
    points = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8]])
    truth = torch.tensor([[0.0, 0, 16, 8]])
    predicted = torch.tensor([[0.0, 0, 16, 8], [8, 0, 16, 8]])
    matches = TaskAlignedMatcher(alpha=1.0, beta=2.0)(
        points, truth, gt_labels=torch.tensor([1]), class_logits=torch.zeros(2, 2),
        pred_boxes=predicted,
    )  # fmt: skip
    torch.testing.assert_close(matches.score, torch.tensor([1.0, 0.25]))


class TestAContestedAnchor:
    """One anchor inside two ground truths, whose prediction overlaps a third one most."""

    points = torch.tensor([[0.0, 0, 8, 8]])
    truths = torch.tensor([[0.0, 0, 20, 20], [0, 0, 30, 30], [20, 20, 60, 60]])
    predicted = torch.tensor([[0.0, 0, 55, 55]])

    def owner(self, convention):
        return said(
            TaskAlignedMatcher(convention=convention)(
                self.points, self.truths, gt_labels=torch.zeros(3, dtype=torch.long),
                class_logits=torch.zeros(1, 1), pred_boxes=self.predicted,
            )
        )  # fmt: skip

    def test_goes_to_the_best_of_all_in_ppyoloe(self):
        assert self.owner("ppyoloe") == [2]

    @pytest.mark.parametrize("convention", ["tood", "ultralytics"])
    def test_goes_to_the_best_that_it_is_inside_of_elsewhere(self, convention):
        assert self.owner(convention) == [1]


def test_a_short_side_takes_anchors_as_if_it_were_longer():
    """A ground truth of 6 x 6 between the centres of the points."""
    truth = torch.tensor([[5.0, 5, 11, 11]])
    inputs = {
        "gt_labels": torch.tensor([0]), "class_logits": torch.zeros(len(POINTS), 1),
        "pred_boxes": truth.expand(len(POINTS), 4),
    }  # fmt: skip
    near = TaskAlignedMatcher(convention="ultralytics")(POINTS, truth, **inputs)
    assert near.positive.sum() == 1  # the centre of the large cell, at (8, 8)
    wide = TaskAlignedMatcher(convention="ultralytics", min_side=16.0)(POINTS, truth, **inputs)
    middle = (POINTS[:, :2] + POINTS[:, 2:]) / 2
    assert torch.equal(wide.positive, ((middle - 8).abs() < 8).all(1))


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_prediction_that_is_not_finite_is_background(convention):
    truths, predictions = scene(4, seed=3)
    matcher = TaskAlignedMatcher(convention=convention)
    positive = matcher(POINTS, truths, **predictions).positive
    bad = positive.nonzero()[0].item()
    for name in ("pred_boxes", "class_logits"):
        broken = {**predictions, name: predictions[name].clone()}
        broken[name][bad] = math.nan
        matches = matcher(POINTS, truths, **broken)
        assert not matches.positive[bad]
        assert matches.score.isfinite().all()


def test_what_it_needs_must_be_there():
    with pytest.raises(ValueError, match="^matcher task_aligned needs class_logits, got None$"):
        TaskAlignedMatcher()(POINTS, scene(2)[0])
