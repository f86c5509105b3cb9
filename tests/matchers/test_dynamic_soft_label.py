"""Dynamic soft labels against a plain reading of the paper."""

import math

import pytest
import torch
from matching import N, said

from detloss.boxes import grid_points, pairwise_overlap
from detloss.matchers import DynamicSoftLabelMatcher
from detloss.tensors import without_host_sync

POINTS, _ = grid_points([(8, 8), (4, 4)], [8, 16])


def scene(count, *, seed=0, classes=3):
    """Ground truths of 5 to 45 pixels, and predictions that overlap some of them."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    centre, side = uniform(count, 2) * 64, 9 + uniform(count, 2) * 40
    truths = torch.cat([centre - side / 2, centre + side / 2], 1)
    middle = (POINTS[:, :2] + POINTS[:, 2:]) / 2
    reach = 4 + uniform(2, len(POINTS), 2) * 20
    return truths, {
        "gt_labels": torch.randint(0, classes, (count,), generator=generator),
        "class_logits": torch.randn(len(POINTS), classes, generator=generator) * 2,
        "pred_boxes": torch.cat([middle - reach[0], middle + reach[1]], 1),
    }


def plainly(matcher, truths, gt_labels, class_logits, pred_boxes):
    """The owner of each anchor, by loops."""
    iou = pairwise_overlap(truths, pred_boxes).tolist()
    rows, anchors = range(len(truths)), range(len(POINTS))
    centres = [((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1) for x1, y1, x2, y2 in POINTS.tolist()]
    candidates = [
        anchor for anchor, (x, y, _) in enumerate(centres)
        if any(x1 < x < x2 and y1 < y < y2 for x1, y1, x2, y2 in truths.tolist())
    ]  # fmt: skip

    def cost(row, anchor):
        total = 0.0
        for index, logit in enumerate(class_logits[anchor].tolist()):
            p, y = 1 / (1 + math.exp(-logit)), iou[row][anchor] if index == gt_labels[row] else 0.0
            total -= (y - p) ** 2 * (y * math.log(p) + (1 - y) * math.log(1 - p))
        total -= matcher.iou_weight * math.log(iou[row][anchor] + 1e-7)
        if matcher.center_radius is not None:
            (x, y, side), (x1, y1, x2, y2) = centres[anchor], truths[row].tolist()
            distance = math.hypot(x - (x1 + x2) / 2, y - (y1 + y2) / 2) / side
            total += 10 ** (distance - matcher.center_radius)
        return total

    taken = [[] for _ in anchors]
    for row in rows:
        best = sorted((iou[row][anchor] for anchor in candidates), reverse=True)[: matcher.topk]
        k = max(int(sum(best)), 1)
        for anchor in sorted(candidates, key=lambda anchor: cost(row, anchor))[:k]:
            taken[anchor].append(row)
    owner = [
        N if not takers else takers[0] if len(takers) == 1
        else min(rows, key=lambda row: cost(row, anchor))
        for anchor, takers in enumerate(taken)
    ]  # fmt: skip
    return owner, [0.0 if row == N else iou[row][anchor] for anchor, row in enumerate(owner)]


@pytest.mark.parametrize(
    "options", [{}, {"center_radius": None, "topk": 7}, {"iou_weight": 1.0}], ids=repr
)
def test_it_is_what_a_plain_reading_gives(options):
    matcher = DynamicSoftLabelMatcher(**options)
    positives = 0
    for seed in range(8):
        truths, predictions = scene(5, seed=seed)
        matches = matcher(POINTS, truths, **predictions)
        owner, score = plainly(matcher, truths, **predictions)
        assert said(matches) == owner
        torch.testing.assert_close(matches.score, torch.tensor(score))
        with without_host_sync():
            assert said(matcher(POINTS, truths, **predictions)) == owner
        positives += int(matches.positive.sum())
    assert positives > 40


def test_what_it_needs_must_be_there():
    truths, predictions = scene(2)
    del predictions["pred_boxes"]
    message = "^matcher dynamic_soft_label needs pred_boxes, got None$"
    with pytest.raises(ValueError, match=message):
        DynamicSoftLabelMatcher()(POINTS, truths, **predictions)
