"""SimOTA against a plain reading of its conventions."""

import math

import pytest
import torch
from matching import N, said

from detloss.boxes import grid_points, pairwise_overlap
from detloss.matchers import SimOTAMatcher
from detloss.tensors import without_host_sync

POINTS, _ = grid_points([(8, 8), (4, 4)], [8, 16])


def scene(count, *, seed=0, classes=3):
    """Ground truths of 5 to 45 pixels, and predictions that overlap some of them."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    centre, side = uniform(count, 2) * 64, 5 + uniform(count, 2) * 40
    truths = torch.cat([centre - side / 2, centre + side / 2], 1)
    middle = (POINTS[:, :2] + POINTS[:, 2:]) / 2
    reach = 4 + uniform(2, len(POINTS), 2) * 20
    return truths, {
        "gt_labels": torch.randint(0, classes, (count,), generator=generator),
        "class_logits": torch.randn(len(POINTS), classes, generator=generator) * 2,
        "pred_boxes": torch.cat([middle - reach[0], middle + reach[1]], 1),
        "objectness": torch.randn(len(POINTS), generator=generator),
    }


def plainly(matcher, truths, gt_labels, class_logits, pred_boxes, objectness):
    """The owner of each anchor, by loops."""
    iou = pairwise_overlap(truths, pred_boxes).tolist()
    mmdet = matcher.convention == "mmdet"
    rows, anchors = range(len(truths)), range(len(POINTS))
    near = [[False] * len(POINTS) for _ in rows]
    inside = [[False] * len(POINTS) for _ in rows]
    for row, (x1, y1, x2, y2) in enumerate(truths.tolist()):
        for anchor, (left, top, right, bottom) in enumerate(POINTS.tolist()):
            x, y, reach = (left + right) / 2, (top + bottom) / 2, matcher.radius * (right - left)
            near[row][anchor] = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) < reach
            inside[row][anchor] = x1 < x < x2 and y1 < y < y2
    candidates = [
        anchor for anchor in anchors
        if any(near[row][anchor] or (mmdet and inside[row][anchor]) for row in rows)
    ]  # fmt: skip

    def cost(row, anchor):
        total = 0.0
        for index, logit in enumerate(class_logits[anchor].tolist()):
            q = math.sqrt(1 / (1 + math.exp(-logit)) / (1 + math.exp(-objectness[anchor].item())))
            total -= math.log(q if index == gt_labels[row] else 1 - q)
        total -= matcher.iou_weight * math.log(iou[row][anchor] + (1e-7 if mmdet else 1e-8))
        good = near[row][anchor] and (inside[row][anchor] or not mmdet)
        return total + (0 if good else 1e5 if mmdet else 1e6)

    taken = [[] for _ in anchors]
    for row in rows:
        best = sorted((iou[row][anchor] for anchor in candidates), reverse=True)[: matcher.topk]
        k = max(int(sum(best)), 1)
        for anchor in sorted(candidates, key=lambda anchor: cost(row, anchor))[:k]:
            taken[anchor].append(row)
    return [
        N if not takers else takers[0] if len(takers) == 1
        else min(rows, key=lambda row: cost(row, anchor))
        for anchor, takers in enumerate(taken)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [{}, {"radius": 2.5, "topk": 5}, {"convention": "mmdet", "radius": 2.5}, {"iou_weight": 0.5}],
    ids=repr,
)
def test_it_is_what_a_plain_reading_gives(options):
    matcher = SimOTAMatcher(**options)
    positives = 0
    for seed in range(8):
        truths, predictions = scene(5, seed=seed)
        matches = matcher(POINTS, truths, **predictions)
        assert said(matches) == plainly(matcher, truths, **predictions)
        with without_host_sync():
            assert said(matcher(POINTS, truths, **predictions)) == said(matches)
        positives += int(matches.positive.sum())
    assert positives > 40


def test_certain_answers_have_a_finite_cost():
    """The probability of the class is 0 or 1 to the last bit."""
    truths, predictions = scene(4, seed=1)
    predictions["class_logits"] = torch.where(predictions["class_logits"] > 0, 200.0, -200.0)
    predictions["objectness"][:] = 200.0
    assert SimOTAMatcher()(POINTS, truths, **predictions).positive.any()


def test_what_it_needs_must_be_there():
    truths, predictions = scene(2)
    del predictions["objectness"]
    with pytest.raises(ValueError, match="^matcher sim_ota needs objectness, got None$"):
        SimOTAMatcher()(POINTS, truths, **predictions)
