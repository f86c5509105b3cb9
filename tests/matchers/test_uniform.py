"""Uniform matching of YOLOF: by hand, and against a plain reading."""

import pytest
import torch
from boxgen import random_boxes
from matching import N, X, said

from detloss.boxes import pairwise_overlap
from detloss.matchers import UniformMatcher
from detloss.tensors import without_host_sync

SQUARE = [0.0, 0, 10, 10]
FAR = [90.0, 90, 100, 100]


def distance(box, other):
    """Of the centres, along x and along y, and of width and height."""
    x1, y1, x2, y2 = box
    a1, b1, a2, b2 = other
    centres = abs((x1 + x2) - (a1 + a2)) / 2 + abs((y1 + y2) - (b1 + b2)) / 2
    return centres + abs((x2 - x1) - (a2 - a1)) + abs((y2 - y1) - (b2 - b1))


def plainly(anchors, truths, predicted, topk, positive, negative):
    """Pairs that count, and what becomes of each anchor: pair after pair, the last is right."""
    overlap = pairwise_overlap(anchors, truths).tolist()
    becomes = [
        X if max(of_anchor) > negative else N
        for of_anchor in pairwise_overlap(predicted, truths).tolist()
    ]
    order = {}
    for kind, boxes in enumerate((predicted.tolist(), anchors.tolist())):
        for row, truth in enumerate(truths.tolist()):
            if not any(of_anchor[row] for of_anchor in overlap):
                continue
            near = sorted(range(len(boxes)), key=lambda place: distance(boxes[place], truth))
            for rank, anchor in enumerate(near[:topk]):
                order[rank, kind, row] = anchor
    pairs = []
    for (_, _, row), anchor in sorted(order.items()):
        becomes[anchor] = row if overlap[anchor][row] >= positive else X
        if becomes[anchor] == row:
            pairs.append([anchor, row])
    return pairs, becomes


@pytest.mark.parametrize("topk", [1, 4, 200])
@pytest.mark.parametrize(("positive", "negative"), [(0.15, 0.7), (0.3, 0.2)])
def test_it_is_what_a_plain_reading_gives(topk, positive, negative):
    matcher = UniformMatcher(topk=topk, positive=positive, negative=negative)
    for seed in range(4):
        anchors = random_boxes(80, seed=seed, dtype=torch.float32)
        truths = random_boxes(9, seed=seed + 100, dtype=torch.float32)
        predicted = random_boxes(80, seed=seed + 200, dtype=torch.float32)
        matches = matcher(anchors, truths, pred_boxes=predicted)
        pairs, becomes = plainly(anchors, truths, predicted, topk, positive, negative)
        assert matches.pairs.tolist() == pairs
        assert said(matches) == becomes
        with without_host_sync():
            found = matcher(anchors, truths, pred_boxes=predicted)
        assert found.listed_pairs.tolist() == pairs
        assert said(found) == becomes


def test_in_blocks_of_ground_truths_it_is_the_same(monkeypatch):
    anchors, predicted = random_boxes(80, seed=0), random_boxes(80, seed=1)
    truths = random_boxes(9, seed=2)
    expected = UniformMatcher()(anchors, truths, pred_boxes=predicted)
    monkeypatch.setattr("detloss.matchers.tiles.CPU_PAIRS", 2 * 80)
    found = UniformMatcher()(anchors, truths, pred_boxes=predicted)
    assert torch.equal(found.pairs, expected.pairs)
    assert said(found) == said(expected)


@pytest.mark.parametrize(
    ("predicted", "becomes", "pairs"),
    [
        pytest.param([SQUARE, FAR], [0, N], [[0, 0], [0, 0]], id="nearest twice: two pairs"),
        pytest.param([FAR, SQUARE], [0, 0], [[1, 0], [0, 0]], id="another is by its prediction"),
    ],
)
def test_pairs_worked_by_hand(predicted, becomes, pairs):
    anchors = torch.tensor([SQUARE, [5.0, 0, 15, 10]])
    matches = UniformMatcher(topk=1)(
        anchors, torch.tensor([SQUARE]), pred_boxes=torch.tensor(predicted)
    )
    assert said(matches) == becomes
    assert matches.pairs.tolist() == pairs


@pytest.mark.parametrize(
    ("side", "becomes"),
    [
        pytest.param(20.0, 0, id="an IoU of 1 / 4"),
        pytest.param(40.0, X, id="1 / 16 is too little: neither positive nor background"),
    ],
)
def test_an_anchor_that_fits_badly_is_ignored(side, becomes):
    anchors = torch.tensor([[0.0, 0, side, side], FAR])
    matches = UniformMatcher(topk=1)(anchors, torch.tensor([SQUARE]), pred_boxes=anchors)
    assert said(matches) == [becomes, N]
    assert len(matches.pairs) == 2 * (becomes == 0)


def test_a_good_prediction_of_another_anchor_is_ignored():
    """The IoU of its prediction is 4 / 5, that of the next 7 / 10, which is not above 0.7."""
    anchors = torch.tensor([SQUARE, [60.0, 0, 70, 10], [0, 60, 10, 70]])
    predicted = torch.tensor([SQUARE, [0.0, 0, 10, 8], [0, 0, 10, 7]])
    matches = UniformMatcher(topk=1)(anchors, torch.tensor([SQUARE]), pred_boxes=predicted)
    assert said(matches) == [0, X, N]


def test_the_last_pair_of_an_anchor_decides():
    """It is nearest to both; for the second ground truth it fits badly, which comes later."""
    anchors, small = torch.tensor([SQUARE]), [0.0, 0, 3, 3]
    matcher = UniformMatcher(topk=1)
    for truths, becomes in ([SQUARE, small], X), ([small, SQUARE], 1):
        matches = matcher(anchors, torch.tensor(truths), pred_boxes=anchors)
        assert said(matches) == [becomes]
        assert matches.pairs.tolist() == [[0, truths.index(SQUARE)]] * 2


def test_of_equally_near_anchors_the_first_are_taken():
    anchors = torch.tensor([[1.0, 0, 11, 10], SQUARE, [0.0, 1, 10, 11], SQUARE])
    matches = UniformMatcher(topk=3)(anchors, torch.tensor([SQUARE]), pred_boxes=anchors)
    assert matches.pairs[::2].tolist() == [[1, 0], [3, 0], [0, 0]]
    assert said(matches) == [0, 0, X, 0]


def test_one_that_overlaps_no_anchor_has_no_pairs_and_nothing_is_ignored():
    anchors = torch.tensor([SQUARE, [10.0, 0, 20, 10]])
    for truth in ([20.0, 0, 30, 10], [5.0, 5, 5, 5]):
        matches = UniformMatcher()(anchors, torch.tensor([truth]), pred_boxes=anchors)
        assert said(matches) == [N, N]
        assert matches.pairs.shape == (0, 2)


def test_a_threshold_of_0_takes_what_overlaps():
    anchors = torch.tensor([SQUARE, FAR])
    matches = UniformMatcher(topk=2, positive=0.0)(
        anchors, torch.tensor([SQUARE]), pred_boxes=anchors
    )
    assert said(matches) == [0, X]


def test_asks_for_predicted_boxes():
    with pytest.raises(ValueError, match="matcher uniform needs pred_boxes, got None"):
        UniformMatcher()(torch.tensor([SQUARE]), torch.tensor([SQUARE]))
