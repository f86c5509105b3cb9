"""ATSS matching: by hand, against the paper in loops, and golden matches."""

import math
import statistics
from pathlib import Path

import pytest
import torch
from boxgen import random_boxes
from matching import N, X, said, said_by_original
from parity.golden import Golden

from detloss.matchers import ATSSMatcher

GOLDEN = Path(__file__).parents[1] / "golden"
CONVENTIONS = ["paper", "mmdet", "paddle"]
MARGIN = {"paper": 0.0, "mmdet": 0.01, "paddle": 1e-9}


def tensor(boxes):
    return torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)


def pyramid(size, strides):
    """Squares (x1, y1, x2, y2) around the cells' centres of square maps; how many each has."""
    anchors = [
        (i * stride, j * stride, (i + 1) * stride, (j + 1) * stride)
        for stride in strides
        for j in range(size // stride)
        for i in range(size // stride)
    ]
    return anchors, [(size // stride) ** 2 for stride in strides]


def centre(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def shared(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


def iou(a, b):
    return shared(a, b) / (area(a) + area(b) - shared(a, b))


def scaled(box, factor):
    (x, y), width, height = centre(box), box[2] - box[0], box[3] - box[1]
    dx, dy = width * factor / 2, height * factor / 2
    return x - dx, y - dy, x + dx, y + dy


def reference_match(
    given, level_sizes, truths, ignore, *, topk, scale, convention, ignore_overlap=0.5
):
    """Algorithm 1 of the paper, line by line on Python floats.

    Line 3 to 5: the candidates; 6 to 9: IoUs, mean and standard deviation; 10 to 14: positive is a
    candidate of at least their sum whose centre is inside. Section 3.2 assigns an anchor that
    several objects select to the one of the highest IoU.
    """
    anchors = [scaled(box, scale) for box in given]
    selected = {}
    for g, truth in enumerate(truths):
        if ignore[g]:
            continue
        candidates, first = [], 0
        for size in level_sizes:
            level = range(first, first + size)
            candidates += sorted(
                level, key=lambda i: (math.dist(centre(anchors[i]), centre(truth)), i)
            )[:topk]
            first += size
        overlaps = [iou(anchors[i], truth) for i in candidates]
        deviation = statistics.stdev(overlaps) if len(overlaps) > 1 else 0.0
        threshold = statistics.mean(overlaps) + deviation
        for i, overlap in zip(candidates, overlaps, strict=True):
            assert abs(overlap - threshold) > 1e-9 or len(overlaps) == 1, "the scene is not clear"
            (x, y), (x1, y1, x2, y2) = centre(anchors[i]), truth
            inside = min(x - x1, y - y1, x2 - x, y2 - y) > MARGIN[convention]
            high = overlap > threshold if convention == "paddle" else overlap >= threshold
            if inside and high:
                selected.setdefault(i, []).append(g)
    answers = []
    for i, anchor in enumerate(anchors):
        among = selected.get(i, [])
        if convention == "paddle" and len(among) > 1:
            among = [g for g in range(len(truths)) if not ignore[g]]
        regions = [truth for g, truth in enumerate(truths) if ignore[g]]
        share = max((shared(given[i], region) for region in regions), default=0) / area(given[i])
        background = X if share >= ignore_overlap and share > 0 else N
        best = max(among, key=lambda g: (iou(anchor, truths[g]), -g), default=background)
        answers.append(best)
    return answers


def random_truths(count, *, seed, on_corners):
    """(count, 4) boxes within 64; on corners, their centres are as near to four cells' centres."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.randint(4 * 64, 24 * 64, (count, 2), generator=generator).double() / 64
    place = torch.rand(count, 2, generator=generator).double() * 64
    place = (place / 8).round() * 8 if on_corners else (place * 64).round() / 64
    return torch.cat([place - half, place + half], 1)


@pytest.mark.parametrize("on_corners", [False, True], ids=["anywhere", "on corners"])
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("seed", range(10))
def test_every_anchor_matches_the_paper(seed, convention, on_corners):
    anchors, level_sizes = pyramid(64, [8, 16, 32])
    truths = random_truths(1 + seed % 7, seed=seed, on_corners=on_corners)
    flags = torch.arange(len(truths)) % 4 == 3
    options = {
        "topk": (1, 3, 9, 30)[seed % 4],
        "scale": (1.0, 2.0, 5.0)[seed % 3],
        "convention": convention,
        "ignore_overlap": (0.25, 0.5)[seed % 2],
    }
    matches = ATSSMatcher(**options)(
        tensor(anchors), truths, gt_ignore=flags, level_sizes=level_sizes
    )
    expected = reference_match(anchors, level_sizes, truths.tolist(), flags.tolist(), **options)
    assert said(matches) == expected


@pytest.mark.parametrize("convention", ["paper", "mmdet"])
@pytest.mark.parametrize("name", ["mmdet/atss", "mmdet/gfl"])
@pytest.mark.parametrize("seed", [0, 1])
def test_matches_of_originals(name, seed, convention):
    """mmdetection, its scenes clear of what the conventions differ in."""
    golden = Golden.read(GOLDEN / f"{name}_seed{seed}.npz")
    if name == "mmdet/gfl":
        anchors, matcher = golden.points(), ATSSMatcher(scale=8.0, convention=convention)
    else:
        anchors, matcher = golden.anchors(), ATSSMatcher(convention=convention)
    positives = 0
    for target, matched in zip(golden.targets(), golden.matched(), strict=True):
        matches = matcher(anchors, target["boxes"], level_sizes=golden.level_sizes())
        assert said(matches) == said_by_original(matched.tolist())
        positives += int(matches.positive.sum())
    assert positives >= 25


ROW = [[10.0 * i, 0.0, 10.0 * i + 10, 10.0] for i in range(6)]


@pytest.mark.parametrize(
    ("options", "truths", "level_sizes", "expected"),
    [
        pytest.param(
            {"topk": 3},
            [[1.0, 0.0, 12.0, 10.0]],
            [6],
            [0, N, N, N, N, N],
            id="IoUs .75 .105 0: mean .285 + deviation .406",
        ),
        pytest.param(
            {"topk": 3},
            [[8.0, 0.0, 32.0, 10.0]],
            [6],
            [N, N, N, N, N, N],
            id="IoUs .063 .417 .417: mean .299 + deviation .204: none",
        ),
        pytest.param(
            {"topk": 6},
            [[8.0, 0.0, 32.0, 10.0]],
            [6],
            [N, 0, 0, N, N, N],
            id="with three of 0 and .063 beside: mean .160 + deviation .201",
        ),
        pytest.param(
            {"topk": 9},
            [[8.0, 0.0, 32.0, 10.0]],
            [6],
            [N, 0, 0, N, N, N],
            id="more asked for than there are: the whole level",
        ),
        pytest.param(
            {"topk": 1},
            [[12.0, 0.0, 28.0, 10.0]],
            [6],
            [N, 0, N, N, N, N],
            id="two as near: the first; of one candidate the threshold is its IoU",
        ),
        pytest.param(
            {"topk": 2},
            [[12.0, 0.0, 28.0, 10.0]],
            [6],
            [N, 0, 0, N, N, N],
            id="two equal IoUs: the deviation is 0",
        ),
        pytest.param(
            {"topk": 2},
            [[12.0, 0.0, 29.0, 10.0]],
            [6],
            [N, N, N, N, N, N],
            id="two unequal IoUs: no candidate reaches mean + deviation",
        ),
        pytest.param(
            {"topk": 2},
            [[25.0, 0.0, 47.0, 10.0]],
            [3, 3],
            [N, N, N, 0, N, N],
            id="two of each level, IoUs 0 .185 .455 .28: mean .230 + deviation .190",
        ),
        pytest.param(
            {"topk": 1},
            [[15.0, 0.0, 16.0, 10.0]],
            [6],
            [N, N, N, N, N, N],
            id="the centre of the nearest is on its edge",
        ),
        pytest.param(
            {"topk": 1},
            [[10.0, 0.0, 20.0, 8.0], [10.0, 0.0, 20.0, 9.0]],
            [6],
            [N, 1, N, N, N, N],
            id="selected by two: IoU .9 before .8",
        ),
        pytest.param(
            {"topk": 1},
            [[10.0, 0.0, 20.0, 9.0], [10.0, 1.0, 20.0, 10.0]],
            [6],
            [N, 0, N, N, N, N],
            id="selected by two with IoU .9: the first",
        ),
        pytest.param(
            {"topk": 1, "scale": 3.0},
            [[10.0, -5.0, 20.0, 5.5]],
            [6],
            [N, 0, N, N, N, N],
            id="grown to 30: still one candidate, its centre still inside",
        ),
        pytest.param(
            {"topk": 3, "scale": 2.0},
            [[12.0, 0.0, 18.0, 8.0]],
            [6],
            [N, 0, N, N, N, N],
            id="grown, all three overlap: IoUs .071 .12 .071",
        ),
    ],
)
def test_worked_by_hand(options, truths, level_sizes, expected):
    matches = ATSSMatcher(**options)(tensor(ROW), tensor(truths), level_sizes=level_sizes)
    assert said(matches) == expected


@pytest.mark.parametrize(
    ("inside", "convention", "expected"),
    [
        (0.02, "paper", 0),
        (0.02, "mmdet", 0),
        (0.005, "paper", 0),
        (0.005, "mmdet", N),
        (0.0, "paper", N),
    ],
)
def test_how_far_inside_worked_by_hand(inside, convention, expected):
    truth = [5.0 - inside, 0.0, 30.0, 10.0]  # the anchor's centre is at 5
    matcher = ATSSMatcher(topk=1, convention=convention)
    assert said(matcher(tensor(ROW[:1]), tensor([truth]), level_sizes=[1])) == [expected]


def test_a_candidate_at_the_threshold_worked_by_hand():
    """Equal IoUs are all at their mean: enough in the paper, not for PaddleDetection."""
    truth = tensor([[12.0, 0.0, 28.0, 10.0]])
    for convention, expected in (("paper", [N, 0, 0, N, N, N]), ("paddle", [N] * 6)):
        matcher = ATSSMatcher(topk=2, convention=convention)
        assert said(matcher(tensor(ROW), truth, level_sizes=[6])) == expected


def test_paddle_gives_a_contested_anchor_to_a_truth_that_does_not_select_it():
    """Both the first and the second select it; the third overlaps it most, and others more."""
    anchors, level_sizes = pyramid(64, [8, 16, 32])
    differ = 0
    for seed in range(60):
        truths = random_truths(8, seed=seed, on_corners=False)
        found = {
            convention: said(
                ATSSMatcher(topk=9, scale=2.0, convention=convention)(
                    tensor(anchors), truths, level_sizes=level_sizes
                )
            )
            for convention in ("paper", "paddle")
        }
        expected = reference_match(
            anchors,
            level_sizes,
            truths.tolist(),
            [False] * 8,
            topk=9,
            scale=2.0,
            convention="paddle",
        )
        assert found["paddle"] == expected
        differ += found["paddle"] != found["paper"]
    assert differ


@pytest.mark.parametrize("equal", [2, 3, 5, 7])
@pytest.mark.parametrize("float64", [True, False])
def test_equal_overlaps_are_their_own_mean(equal, float64, monkeypatch):
    """In float32 a third of three equal IoUs may be less than one of them."""
    monkeypatch.setattr("detloss.matchers.atss.has_float64", lambda device: float64)
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).repeat(equal, 1)
    for side in range(1, 30):
        truth = torch.tensor([[0.0, 0.0, 10.0, 5.0 + side / 7]])
        matches = ATSSMatcher(topk=equal)(anchors, truth, level_sizes=[equal])
        assert matches.positive.all()


@pytest.mark.parametrize("seed", range(5))
def test_without_float64_the_matches_are_the_same(seed, monkeypatch):
    anchors, truths = random_boxes(200, seed=seed, dtype=torch.float32), random_boxes(9, seed=seed)
    expected = said(ATSSMatcher()(anchors, truths.float(), level_sizes=[150, 50]))
    monkeypatch.setattr("detloss.matchers.atss.has_float64", lambda device: False)
    monkeypatch.setattr(torch.Tensor, "double", None)
    assert said(ATSSMatcher()(anchors, truths.float(), level_sizes=[150, 50])) == expected
    assert set(expected) > {N}


@pytest.mark.parametrize(
    "truth",
    [
        pytest.param([15.0, 5.0, 15.0, 5.0], id="a point"),
        pytest.param([0.0, 5.0, 60.0, 5.0], id="flat"),
        pytest.param([60.0, 10.0, 0.0, 0.0], id="inverted"),
        pytest.param([100.0, 0.0, 120.0, 10.0], id="beside all anchors"),
        pytest.param([0.0, 0.0, math.inf, 10.0], id="infinite"),
        pytest.param([math.nan, 0.0, 60.0, 10.0], id="not a number"),
    ],
)
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_truth_that_overlaps_nothing_claims_nothing(truth, convention):
    matcher = ATSSMatcher(topk=9, convention=convention)
    anchors, other = tensor(ROW), [11.0, 0.0, 22.0, 10.0]
    assert said(matcher(anchors, tensor([truth]), level_sizes=[6])) == [N] * 6
    both = matcher(anchors, tensor([truth, other]), level_sizes=[6])
    assert said(both) == [N, 1, N, N, N, N]


def test_a_level_may_be_empty():
    truths = random_truths(3, seed=0, on_corners=False)
    anchors, level_sizes = pyramid(64, [8, 16])
    expected = ATSSMatcher()(tensor(anchors), truths, level_sizes=level_sizes)
    found = ATSSMatcher()(tensor(anchors), truths, level_sizes=[0, *level_sizes, 0])
    assert expected.positive.any()
    assert said(found) == said(expected)


@pytest.mark.parametrize("level_sizes", [None, [], [3, 3], [6, 1]])
def test_rejects_level_sizes(level_sizes):
    got = "None" if level_sizes is None else rf"\[{', '.join(map(str, level_sizes))}\]"
    with pytest.raises(ValueError, match=f"level_sizes must add up to the 5 anchors, got {got}"):
        ATSSMatcher()(random_boxes(5), random_boxes(2), level_sizes=level_sizes)


def test_needs_level_sizes():
    assert ATSSMatcher.needs == {"level_sizes"}
    assert not ATSSMatcher.scores


def test_anchors_need_sizes_unless_it_gives_them_some():
    assert ATSSMatcher().needs_sizes
    assert not ATSSMatcher(scale=8).needs_sizes


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"topk": 0}, ValueError, "topk: expected a value greater than 0, got 0"),
        ({"topk": 9.5}, TypeError, r"topk: expected a valid integer, got 9\.5"),
        ({"scale": 0.0}, ValueError, "scale: expected a value greater than 0"),
        ({"convention": "yolov6"}, ValueError, "convention: expected 'paper', 'mmdet' or 'paddle'"),
        ({"ignore_overlap": -1.0}, ValueError, "ignore_overlap: .* greater than or equal to 0"),
    ],
)
def test_rejects_options(options, error, message):
    with pytest.raises(error, match=message):
        ATSSMatcher(**options)
