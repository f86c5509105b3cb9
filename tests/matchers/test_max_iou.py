"""Max-IoU matching: by hand, against the paper in loops, and against torchvision."""

import pytest
import torch
from boxgen import random_boxes
from hypothesis import given
from hypothesis import strategies as st
from matching import N, X, said
from torchvision.models.detection._utils import Matcher as TorchvisionMatcher
from torchvision.ops import box_iou

from detloss.boxes import pairwise_overlap
from detloss.matchers import MaxIoUMatcher, match_matrix
from detloss.tensors import without_host_sync

# anchors and truths of a grid: ties, duplicates and IoUs that equal a threshold are common
grid_boxes = st.lists(
    st.tuples(*[st.integers(0, 4)] * 2, *[st.integers(0, 3)] * 2).map(
        lambda box: [float(v) for v in (box[0], box[1], box[0] + box[2], box[1] + box[3])]
    ),
    min_size=0,
    max_size=6,
)
thresholds = st.sampled_from([0.25, 1 / 3, 0.5, 0.75, 1.0])


def tensor(boxes):
    return torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)


def reference_shared(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


def reference_area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def reference_match(
    anchors, truths, ignore, *, positive, negative, low_quality, convention, ignore_overlap
):
    """Faster R-CNN, section 3.1.2, anchor by anchor on Python floats.

    Rule (i) of the paper, the anchors of the highest overlap with a ground truth, needs an overlap
    at all; the paper does not say whose they are. Ignore regions are no part of the paper: they
    match nothing and silence the background anchors inside them.
    """

    def iou(a, b):
        union = reference_area(a) + reference_area(b) - reference_shared(a, b)
        return reference_shared(a, b) / union if union else 0.0

    answers = []
    for anchor in anchors:
        best, index, claimed_by, inside = -1.0, 0, None, False
        for i, truth in enumerate(truths):
            if ignore[i]:
                share = reference_area(anchor) * ignore_overlap
                inside |= share > 0 and reference_shared(anchor, truth) >= share
                continue
            overlap = iou(anchor, truth)
            if overlap > best:
                best, index = overlap, i
            highest = max(iou(other, truth) for other in anchors)
            if low_quality and overlap == highest > 0:
                claimed_by = i
        if claimed_by is not None and convention == "mmdet":
            answers.append(claimed_by)
        elif best >= positive or claimed_by is not None:
            answers.append(index)
        else:
            answers.append(X if best >= negative or inside else N)
    return answers


@given(grid_boxes, grid_boxes, st.data())
def test_every_anchor_matches_the_paper(anchors, truths, data):
    ignore = data.draw(st.lists(st.booleans(), min_size=len(truths), max_size=len(truths)))
    low, high = sorted((data.draw(thresholds), data.draw(thresholds)))
    options = {
        "positive": high,
        "negative": low,
        "low_quality": data.draw(st.booleans()),
        "convention": data.draw(st.sampled_from(["torchvision", "mmdet"])),
        "ignore_overlap": data.draw(st.sampled_from([0.25, 0.5, 1.0])),
    }
    flags = torch.tensor(ignore, dtype=torch.bool)
    matcher = MaxIoUMatcher(**options)
    matches = matcher(tensor(anchors), tensor(truths), gt_ignore=flags)
    expected = reference_match(anchors, truths, ignore, **options)
    assert said(matches) == expected
    with without_host_sync():
        assert said(matcher(tensor(anchors), tensor(truths), gt_ignore=flags)) == expected


TRUTH = [0.0, 0.0, 10.0, 10.0]


@pytest.mark.parametrize(
    ("anchor", "expected"),
    [
        pytest.param(TRUTH, 0, id="IoU 1"),
        pytest.param([0.0, 0.0, 10.0, 5.0], 0, id="IoU 1/2, at the threshold: positive"),
        pytest.param([0.0, 0.0, 10.0, 4.75], X, id="IoU 0.475: between"),
        pytest.param([0.0, 0.0, 10.0, 2.5], X, id="IoU 1/4, at the threshold: not background"),
        pytest.param([0.0, 0.0, 10.0, 2.25], N, id="IoU 0.225: background"),
        pytest.param([10.0, 0.0, 20.0, 10.0], N, id="touching"),
        pytest.param([10.0, 10.0, 0.0, 0.0], N, id="an inverted anchor is empty"),
        pytest.param([5.0, 5.0, 5.0, 5.0], N, id="a point"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_thresholds_worked_by_hand(anchor, expected, dtype):
    matcher = MaxIoUMatcher(positive=0.5, negative=0.25, low_quality=False)
    matches = matcher(torch.tensor([anchor], dtype=dtype), torch.tensor([TRUTH], dtype=dtype))
    assert said(matches) == [expected]


def test_equal_thresholds_leave_nothing_between():
    matcher = MaxIoUMatcher(positive=0.5, negative=0.5, low_quality=False)
    anchors = tensor([[0.0, 0.0, 10.0, 5.0], [0.0, 0.0, 10.0, 4.75]])
    assert said(matcher(anchors, tensor([TRUTH]))) == [0, N]


@pytest.mark.parametrize(
    ("anchors", "truths", "expected", "of_mmdet"),
    [
        pytest.param(
            [[0.0, 0.0, 10.0, 1.0], [0.0, 0.0, 1.0, 1.0]],
            [TRUTH],
            [0, N],
            [0, N],
            id="IoU 1/10 is the best there is: claimed",
        ),
        pytest.param(
            [[0.0, 0.0, 10.0, 4.5], [0.0, 0.0, 10.0, 4.25]],
            [TRUTH],
            [0, X],
            [0, X],
            id="claimed out of the band between the thresholds",
        ),
        pytest.param(
            [[0.0, 0.0, 10.0, 1.0], [0.0, 9.0, 10.0, 10.0]],
            [TRUTH],
            [0, 0],
            [0, 0],
            id="a tie: both claimed",
        ),
        pytest.param(
            [[0.0, 0.0, 10.0, 8.0], [0.0, 8.0, 10.0, 9.0]],
            [TRUTH],
            [0, N],
            [0, N],
            id="the best is positive anyway: no second",
        ),
        pytest.param(
            [[0.0, 0.0, 10.0, 10.0]],
            [[0.0, 0.0, 10.0, 8.0], [0.0, 0.0, 10.0, 1.0]],
            [0],
            [1],
            id="claimed by two: assigned to the one that it overlaps most, or to the last",
        ),
        pytest.param(
            [[0.0, 0.0, 10.0, 4.0], [50.0, 0.0, 60.0, 10.0]],
            [[0.0, 0.0, 10.0, 1.0], [0.0, 0.0, 10.0, 2.0]],
            [1, N],
            [1, N],
            id="claimed by two, the last is the better one",
        ),
        pytest.param(
            [[0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 10.0, 4.0]],
            [[0.0, 0.0, 10.0, 8.0], [0.0, 0.0, 10.0, 4.5], [0.0, 3.0, 10.0, 9.0]],
            [0, 1],
            [2, 1],
            id="IoU 8/9, 1/2 and 2/3 with the first: it is the best of the first and the third",
        ),
    ],
)
def test_low_quality_rule_worked_by_hand(anchors, truths, expected, of_mmdet):
    anchors, truths = tensor(anchors), tensor(truths)
    assert said(MaxIoUMatcher()(anchors, truths)) == expected
    assert said(MaxIoUMatcher(convention="mmdet")(anchors, truths)) == of_mmdet
    assert said(MaxIoUMatcher(convention="mmdet", low_quality=False)(anchors, truths)) == said(
        MaxIoUMatcher(low_quality=False)(anchors, truths)
    )


FOUR_ANCHORS = [
    [0.0, 0.0, 10.0, 9.0],
    [0.0, 0.0, 10.0, 2.0],
    [50.0, 0.0, 60.0, 10.0],
    [0.0, 50.0, 10.0, 60.0],
]


@pytest.mark.parametrize(
    "far", [[90.0, 90.0, 95.0, 95.0], [5.0, 5.0, 5.0, 5.0], [9.0, 9.0, 1.0, 1.0]]
)
def test_a_truth_that_overlaps_nothing_claims_nothing(far):
    # the overlaps are [[.9, .2, 0, 0], [0, 0, 0, 0]]
    anchors, truths = tensor(FOUR_ANCHORS), tensor([TRUTH, far])
    assert said(MaxIoUMatcher()(anchors, truths)) == [0, N, N, N]
    assert said(MaxIoUMatcher()(anchors, truths[1:])) == [N, N, N, N]
    assert said(MaxIoUMatcher()(anchors, truths.flip(0))) == [1, N, N, N]


def test_torchvision_lets_such_a_truth_take_every_anchor():
    quality = torch.tensor([[0.9, 0.2, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert TorchvisionMatcher(0.5, 0.4, True)(quality).tolist() == [0, 0, 0, 0]


def test_a_threshold_of_0_does_not_make_a_match_without_overlap():
    matcher = MaxIoUMatcher(positive=0.0, negative=0.0, low_quality=False)
    matches = matcher(tensor(FOUR_ANCHORS), tensor([TRUTH]))
    assert matches.positive.tolist() == [True, True, False, False]


@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize(("high", "low"), [(0.5, 0.4), (0.7, 0.3), (0.5, 0.5)])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_with_torchvision(high, low, low_quality, seed, dtype):
    truths = random_boxes(8, seed=seed, dtype=dtype)
    # each truth lies in a loose and a tight anchor, so that it overlaps something
    loose, tight = torch.tensor([[-1.0, -5.0, 9.0, 3.0], [0.0, 0.0, 0.1, 0.1]], dtype=dtype)
    others = random_boxes(80, seed=seed + 100, dtype=dtype)
    anchors = torch.cat([others, truths + loose, truths + tight])
    quality = box_iou(truths, anchors)
    assert (quality.amax(1) > 0).all()
    theirs = TorchvisionMatcher(high, low, low_quality)(quality).tolist()
    assert min(theirs) < 0 <= max(theirs)

    matcher = MaxIoUMatcher(positive=high, negative=low, low_quality=low_quality)
    names = {-1: N, -2: X}
    assert said(matcher(anchors, truths)) == [names.get(index, index) for index in theirs]


@pytest.mark.parametrize("low_quality", [True, False])
def test_of_equal_truths_the_first_is_assigned(low_quality):
    truths = tensor([[40.0, 40.0, 50.0, 50.0], TRUTH, TRUTH, TRUTH])
    anchors = tensor([[0.0, 0.0, 10.0, 9.0]] * 50)
    matcher = MaxIoUMatcher(low_quality=low_quality)
    assert said(matcher(anchors, truths)) == [1] * 50


def test_a_tie_of_different_truths_goes_to_the_first():
    truths = tensor([[0.0, 0.0, 10.0, 5.0], [0.0, 5.0, 10.0, 10.0]])  # IoU 1/2 with each
    assert said(MaxIoUMatcher()(tensor([TRUTH]), truths)) == [0]
    assert said(MaxIoUMatcher()(tensor([TRUTH]), truths.flip(0))) == [0]


@given(st.integers(0, 2**31))
def test_permuting_the_anchors_permutes_the_matches(seed):
    anchors, truths = random_boxes(30, seed=seed), random_boxes(5, seed=seed + 1)
    gt_ignore = torch.tensor([False, True, False, False, True])
    order = torch.randperm(30, generator=torch.Generator().manual_seed(seed))
    matcher = MaxIoUMatcher(positive=0.3, negative=0.1)
    straight = said(matcher(anchors, truths, gt_ignore=gt_ignore))
    permuted = said(matcher(anchors[order], truths, gt_ignore=gt_ignore))
    assert permuted == [straight[i] for i in order]


@given(st.integers(0, 2**31))
def test_permuting_the_truths_renames_the_matches(seed):
    anchors, truths = random_boxes(30, seed=seed), random_boxes(5, seed=seed + 1)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    matcher = MaxIoUMatcher(positive=0.3, negative=0.1)
    renamed = [
        int(order[answer]) if isinstance(answer, int) else answer
        for answer in said(matcher(anchors, truths[order]))
    ]
    assert renamed == said(matcher(anchors, truths))


@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize(
    ("anchor", "expected"),
    [
        pytest.param([50.0, 0.0, 60.0, 10.0], N, id="elsewhere"),
        pytest.param([20.0, 0.0, 40.0, 40.0], X, id="the region itself: no claim, though IoU 1"),
        pytest.param(
            [30.0, 10.0, 32.0, 12.0], X, id="small and inside: IoU tiny, all of it inside"
        ),
        pytest.param([30.0, 0.0, 50.0, 10.0], X, id="half of it inside"),
        pytest.param([31.0, 0.0, 51.0, 10.0], N, id="9/20 of it inside"),
        pytest.param([30.0, 0.0, 130.0, 100.0], N, id="around: 4/100 of it inside"),
    ],
)
def test_ignore_region_worked_by_hand(anchor, expected, low_quality):
    truths = tensor([TRUTH, [20.0, 0.0, 40.0, 40.0]])
    anchors = tensor([TRUTH, anchor])
    matcher = MaxIoUMatcher(low_quality=low_quality, ignore_overlap=0.5)
    gt_ignore = torch.tensor([False, True])
    assert said(matcher(anchors, truths, gt_ignore=gt_ignore)) == [0, expected]


def test_in_an_ignore_region_a_positive_stays_and_the_rest_is_ignored():
    region = [0.0, 0.0, 100.0, 100.0]
    anchors = tensor(
        [
            [0.0, 0.0, 10.0, 9.0],  # IoU .9 with the truth
            [0.0, 0.0, 10.0, 4.5],  # between the thresholds
            [0.0, 0.0, 10.0, 1.0],  # background but for the region
        ]
    )
    matches = MaxIoUMatcher()(
        anchors, tensor([region, TRUTH]), gt_ignore=torch.tensor([True, False])
    )
    assert said(matches) == [1, X, X]


def test_an_anchor_claimed_in_an_ignore_region_stays_positive():
    anchors = tensor([[0.0, 0.0, 10.0, 1.0], [1.0, 1.0, 3.0, 3.0]])
    truths = tensor([[0.0, 0.0, 100.0, 100.0], TRUTH])
    matches = MaxIoUMatcher()(anchors, truths, gt_ignore=torch.tensor([True, False]))
    assert said(matches) == [1, X]


def test_the_share_inside_is_that_of_one_region():
    # 2/5 of the anchor in each of two regions, 4/5 in both together
    regions = tensor([[0.0, 0.0, 4.0, 10.0], [6.0, 0.0, 10.0, 10.0]])
    matches = MaxIoUMatcher(ignore_overlap=0.5)(
        tensor([TRUTH]), regions, gt_ignore=torch.tensor([True, True])
    )
    assert said(matches) == [N]


def test_target_index_counts_ignored_truths():
    truths = tensor([TRUTH, [20.0, 0.0, 30.0, 10.0], TRUTH, [40.0, 0.0, 50.0, 10.0]])
    anchors = truths[[0, 3]]
    gt_ignore = torch.tensor([True, True, False, False])
    assert said(MaxIoUMatcher()(anchors, truths, gt_ignore=gt_ignore)) == [2, 3]


@given(grid_boxes, grid_boxes)
def test_no_flag_set_is_no_flags(anchors, truths):
    matcher = MaxIoUMatcher()
    flags = torch.zeros(len(truths), dtype=torch.bool)
    with_flags = matcher(tensor(anchors), tensor(truths), gt_ignore=flags)
    assert said(with_flags) == said(matcher(tensor(anchors), tensor(truths)))


@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize("flags", [True, False])
@pytest.mark.parametrize(("anchors", "truths"), [(0, 0), (0, 3), (5, 0)])
def test_nothing_to_match(anchors, truths, flags, low_quality):
    gt_ignore = torch.zeros(truths, dtype=torch.bool) if flags else None
    matches = MaxIoUMatcher(low_quality=low_quality)(
        random_boxes(anchors), random_boxes(truths), gt_ignore=gt_ignore
    )
    assert said(matches) == [N] * anchors
    assert matches.target_index.dtype == torch.int64
    assert matches.positive.dtype == matches.ignored.dtype == torch.bool
    assert matches.target_index.shape == matches.positive.shape == matches.ignored.shape


@pytest.mark.parametrize("low_quality", [True, False])
def test_only_ignore_regions(low_quality):
    matches = MaxIoUMatcher(low_quality=low_quality)(
        tensor([TRUTH, [50.0, 0.0, 60.0, 10.0]]),
        tensor([TRUTH, TRUTH]),
        gt_ignore=torch.tensor([True, True]),
    )
    assert said(matches) == [X, N]


def test_target_index_is_0_where_there_is_no_target():
    truths = tensor([[80.0, 80.0, 90.0, 90.0], TRUTH])
    anchors = tensor([TRUTH, [0.0, 0.0, 10.0, 4.5], [50.0, 0.0, 60.0, 10.0]])
    matches = MaxIoUMatcher(low_quality=False)(anchors, truths)
    assert matches.target_index.tolist() == [1, 0, 0]
    assert matches.target_index.dtype == torch.int64


def test_other_inputs_are_not_needed_and_not_looked_at():
    anchors, truths = random_boxes(20, seed=1), random_boxes(4, seed=2)
    matcher = MaxIoUMatcher(positive=0.3, negative=0.1)
    assert matcher.needs == frozenset()
    matches = matcher(
        anchors,
        truths,
        gt_labels=torch.zeros(4, dtype=torch.int64),
        level_sizes=[16, 4],
        class_logits=torch.zeros(20, 3),
        pred_boxes=torch.zeros(20, 4),
    )
    assert said(matches) == said(matcher(anchors, truths))


def test_no_gradient_is_recorded():
    anchors = random_boxes(5).requires_grad_()
    matches = MaxIoUMatcher()(anchors, random_boxes(2))
    assert not matches.target_index.requires_grad


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        pytest.param(
            {"anchors": torch.zeros(5, 2)},
            ValueError,
            r"anchors must have shape \(\.\.\., 4\), got \(5, 2\)",
            id="points as anchors",
        ),
        pytest.param(
            {"gt_boxes": torch.zeros(0)},
            ValueError,
            r"gt_boxes must have shape \(\.\.\., 4\), got \(0,\)",
            id="no boxes must be (0, 4)",
        ),
        pytest.param(
            {"gt_boxes": torch.zeros(2, 4).int()},
            TypeError,
            r"gt_boxes must be floating point, got torch\.int32",
            id="integer boxes",
        ),
        pytest.param(
            {"gt_ignore": torch.tensor([0, 1])},
            TypeError,
            r"gt_ignore must be boolean, got torch\.int64",
            id="integer flags would index",
        ),
        pytest.param(
            {"gt_ignore": torch.tensor([True])},
            ValueError,
            r"gt_ignore must have shape \(2,\), got \(1,\)",
            id="one flag for two boxes would broadcast",
        ),
    ],
)
def test_rejects(inputs, error, message):
    arguments = {"anchors": torch.zeros(5, 4), "gt_boxes": torch.zeros(2, 4), **inputs}
    with pytest.raises(error, match=message):
        MaxIoUMatcher()(**arguments)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"positive": 0.4, "negative": 0.5},
            ValueError,
            r"negative must be at most positive \(0\.4\), got 0\.5",
        ),
        (
            {"positive": 0.3},
            ValueError,
            r"negative must be at most positive \(0\.3\), got 0\.4",
        ),
        ({"positive": 1.5}, ValueError, r"positive: .* less than or equal to 1, got 1\.5"),
        ({"negative": -0.1}, ValueError, r"negative: .* greater than or equal to 0, got -0\.1"),
        ({"ignore_overlap": 2.0}, ValueError, r"ignore_overlap: .* less than or equal to 1"),
        ({"positive": "0.5"}, TypeError, "positive: expected a valid number, got '0.5'"),
    ],
)
def test_rejects_options(options, error, message):
    with pytest.raises(error, match=message):
        MaxIoUMatcher(**options)


def test_a_ground_truth_that_is_not_finite_claims_nothing():
    anchors = tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    truths = tensor([[0.0, 0, 10, 10], [float("nan"), 0, 5, 5]])
    matches = MaxIoUMatcher()(anchors, truths)
    assert matches.positive.tolist() == [True, False]
    assert matches.target_index[0] == 0


def test_an_ignore_region_that_touches_nothing_ignores_nothing():
    matcher = MaxIoUMatcher(ignore_overlap=0.0)
    anchors = tensor([[0.0, 0, 10, 10], [9, 0, 19, 10]])
    region = tensor([[0.0, 0, 5, 5]])
    matches = matcher(anchors, region, gt_ignore=torch.tensor([True]))
    assert matches.ignored.tolist() == [True, False]


def test_anchors_and_ground_truth_may_have_different_precision():
    """Boxes that come from numpy are float64, anchors float32."""
    anchors, truths = random_boxes(60, seed=1, dtype=torch.float32), random_boxes(6, seed=2)
    mixed = MaxIoUMatcher()(anchors, truths)
    exact = MaxIoUMatcher()(anchors.double(), truths)
    assert torch.equal(mixed.positive, exact.positive)
    assert torch.equal(mixed.target_index, exact.target_index)


def test_overlaps_that_differ_in_the_sixth_digit_do_not_tie():
    anchors = torch.tensor([[0.0, 0, 100, 10], [0, 0, 100, 10.0001]])
    matches = MaxIoUMatcher()(anchors, torch.tensor([[0.0, 0, 100, 30]]))
    assert matches.positive.tolist() == [False, True]


@pytest.mark.parametrize(
    "options",
    [{}, {"low_quality": False}, {"positive": 0.0, "negative": 0.0}, {"convention": "mmdet"}],
)
@pytest.mark.parametrize("count", [9, 0])
def test_a_ready_matrix_gives_the_same_matches(options, count):
    anchors = random_boxes(120, seed=1)
    truths = random_boxes(max(count, 1), seed=2)[:count]
    found = match_matrix(pairwise_overlap(truths, anchors), **options)
    expected = MaxIoUMatcher(**options)(anchors, truths)
    assert torch.equal(found.target_index, expected.target_index)
    assert torch.equal(found.positive, expected.positive)
    assert torch.equal(found.ignored, expected.ignored)


def test_a_ready_matrix_may_have_no_anchors_and_a_nan_is_no_overlap():
    assert len(match_matrix(torch.zeros(3, 0)).positive) == 0
    assert match_matrix(torch.tensor([[torch.nan, 0.6]])).positive.tolist() == [False, True]


@pytest.mark.parametrize(
    ("overlap", "options", "error", "message"),
    [
        pytest.param(
            torch.zeros(2, 3, dtype=torch.long),
            {},
            TypeError,
            r"overlap must be floating point, got torch\.int64",
            id="counts",
        ),
        pytest.param(
            torch.zeros(3),
            {},
            ValueError,
            r"overlap must have shape \(M, A\), got \(3,\)",
            id="a row",
        ),
        pytest.param(
            torch.zeros(2, 3),
            {"negative": 0.6},
            ValueError,
            r"negative must be at most positive \(0\.5\), got 0\.6",
            id="thresholds the wrong way round",
        ),
        pytest.param(
            torch.zeros(2, 3),
            {"convention": "detectron2"},
            ValueError,
            "convention must be one of torchvision, mmdet, got 'detectron2'",
            id="a convention that there is not",
        ),
    ],
)
def test_a_ready_matrix_is_checked(overlap, options, error, message):
    with pytest.raises(error, match=message):
        match_matrix(overlap, **options)
