"""Cleaning ground truth: what goes, what stays, and what the report says of it."""

import math

import pytest
import torch
from boxgen import random_boxes
from hypothesis import given
from hypothesis import strategies as st

from detloss.boxes import BoxChange, sanitize_targets
from detloss.boxes.sanitize import PER_BOX_KEYS

NAN, INF = float("nan"), float("inf")
GOOD = [1.0, 2.0, 5.0, 8.0]
OVER = [-3.0, 2.0, 5.0, 15.0]
UNUSABLE = [
    pytest.param([NAN, 2.0, 5.0, 8.0], "not finite", id="nan"),
    pytest.param([1.0, 2.0, INF, 8.0], "not finite", id="infinite side"),
    pytest.param([-INF, 2.0, 5.0, 8.0], "not finite", id="minus infinity"),
    pytest.param([5.0, 2.0, 5.0, 8.0], "no area", id="no width"),
    pytest.param([1.0, 8.0, 5.0, 8.0], "no area", id="no height"),
    pytest.param([5.0, 2.0, 1.0, 8.0], "no area", id="inverted in x"),
    pytest.param([5.0, 8.0, 1.0, 2.0], "no area", id="inverted in both: the product is > 0"),
    pytest.param([20.0, 2.0, 25.0, 8.0], "outside the image", id="right of the image"),
    pytest.param([-9.0, 2.0, -1.0, 8.0], "outside the image", id="left of the image"),
    pytest.param([1.0, 10.0, 5.0, 12.0], "outside the image", id="touches the lower edge"),
]


def target_of(*boxes, **entries):
    count = len(boxes)
    rows = torch.tensor(boxes).reshape(count, 4)
    return {"boxes": rows, "labels": torch.arange(count), **entries}


def same(a, b):
    """Equal entry by entry, nan equal to nan."""
    return a.keys() == b.keys() and all(
        torch.allclose(a[key].double(), b[key].double(), rtol=0, atol=0, equal_nan=True)
        and a[key].shape == b[key].shape
        for key in a
    )


@pytest.mark.parametrize("policy", ["drop", "clip"])
@pytest.mark.parametrize(("box", "reason"), UNUSABLE)
def test_an_unusable_box_is_dropped_and_reported(box, reason, policy):
    # the image is 10 high and 20 wide
    clean, changes = sanitize_targets([target_of(GOOD, box, GOOD)], (10, 20), policy)
    assert same(clean[0], target_of(GOOD, GOOD) | {"labels": torch.tensor([0, 2])})
    (change,) = changes
    assert (change.image, change.index) == (0, 1)
    assert (change.reason, change.action) == (reason, "dropped")
    assert str(change) == f"image 0, box 1 {box}: {reason}, dropped"


@pytest.mark.parametrize(("box", "reason"), UNUSABLE)
def test_an_unusable_box_is_an_error_if_asked(box, reason):
    targets = [target_of(GOOD), target_of(GOOD, OVER, box, [NAN] * 4)]
    with pytest.raises(ValueError, match=r"targets\[1\]\['boxes'\]\[2\] is \[.*\]: ") as caught:
        sanitize_targets(targets, (10, 20), "error")
    assert str(caught.value) == f"targets[1]['boxes'][2] is {box}: {reason}"


@pytest.mark.parametrize("policy", ["drop", "error"])
def test_a_box_over_the_edge_is_left_as_it_is(policy):
    target = target_of(OVER, GOOD)
    clean, changes = sanitize_targets([target], (10, 20), policy)
    assert same(clean[0], target)
    assert changes == []


def test_drop_is_the_default():
    clean, changes = sanitize_targets([target_of(OVER, [0.0] * 4)], (10, 20))
    assert same(clean[0], target_of(OVER))
    assert [change.action for change in changes] == ["dropped"]


def test_clip_cuts_at_the_edges():
    clean, changes = sanitize_targets([target_of(GOOD, OVER)], (10, 20), "clip")
    assert same(clean[0], target_of(GOOD, [0.0, 2.0, 5.0, 10.0]))
    assert changes == [BoxChange(0, 1, tuple(OVER), "over the edge", "clipped")]
    assert str(changes[0]) == "image 0, box 1 [-3.0, 2.0, 5.0, 15.0]: over the edge, clipped"


@pytest.mark.parametrize("policy", ["drop", "clip", "error"])
@pytest.mark.parametrize(
    "box",
    [
        pytest.param([0.0, 0.0, 20.0, 10.0], id="the whole image"),
        pytest.param([19.0, 9.0, 20.0, 10.0], id="ends at the corner"),
        pytest.param([0.0, 0.0, 1e-3, 1e-3], id="small, but with an area"),
    ],
)
def test_a_usable_box_inside_is_never_touched(box, policy):
    clean, changes = sanitize_targets([target_of(box)], (10, 20), policy)
    assert same(clean[0], target_of(box))
    assert changes == []


def test_changes_are_in_order_over_images():
    bad = [5.0, 5.0, 5.0, 5.0]
    targets = [target_of(bad, OVER), target_of(), target_of(GOOD, [NAN] * 4, bad)]
    _, changes = sanitize_targets(targets, (10, 20), "clip")
    assert [(c.image, c.index, c.reason, c.action) for c in changes] == [
        (0, 0, "no area", "dropped"),
        (0, 1, "over the edge", "clipped"),
        (2, 1, "not finite", "dropped"),
        (2, 2, "no area", "dropped"),
    ]
    assert changes[0].box == tuple(bad)
    assert all(math.isnan(side) for side in changes[2].box)


def test_every_per_box_entry_loses_its_row():
    rows = {
        "ignore": torch.tensor([True, False, True]),
        "weights": torch.tensor([0.1, 0.2, 0.3]),
        "area": torch.tensor([24.0, 0.0, 25.0]),
        "iscrowd": torch.tensor([0, 1, 1]),
        "masks": torch.arange(12).reshape(3, 2, 2),
        "keypoints": torch.arange(18).reshape(3, 2, 3),
    }
    assert {"boxes", "labels", *rows} == set(PER_BOX_KEYS)
    of_image = {"image_id": torch.tensor(7), "orig_size": torch.tensor([10, 20, 3])}
    (clean,), _ = sanitize_targets([target_of(GOOD, [0.0] * 4, OVER, **rows, **of_image)], (10, 20))
    for key, values in rows.items():
        assert torch.equal(clean[key], values[[0, 2]]), key
    for key, value in of_image.items():
        assert torch.equal(clean[key], value), key  # three rows by chance, but not one a box


@pytest.mark.parametrize("policy", ["drop", "clip"])
def test_nothing_is_changed_in_place(policy):
    target = target_of(GOOD, OVER, [NAN] * 4, area=torch.tensor([24.0, 104.0, NAN]))
    before = {key: value.clone() for key, value in target.items()}
    targets = [target]
    (clean,), _ = sanitize_targets(targets, (10, 20), policy)
    assert same(target, before)
    clean["boxes"].zero_()
    clean["labels"].fill_(9)
    assert same(target, before)
    assert targets[0] is target


@pytest.mark.parametrize("policy", ["drop", "clip", "error"])
def test_no_boxes_and_no_images(policy):
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    clean, changes = sanitize_targets([empty], (10, 20), policy)
    assert same(clean[0], empty)
    assert clean[0]["labels"].dtype == torch.int64
    assert changes == []
    assert sanitize_targets([], (10, 20), policy) == ([], [])


def test_all_boxes_dropped_leaves_shape_and_dtype():
    target = target_of([0.0] * 4, masks=torch.zeros(1, 3, 5, dtype=torch.bool))
    (clean,), _ = sanitize_targets([target], (10, 20))
    assert clean["boxes"].shape == (0, 4)
    assert clean["labels"].dtype == torch.int64
    assert clean["masks"].shape == (0, 3, 5)


def test_one_image_size_a_target():
    box = [12.0, 2.0, 18.0, 8.0]
    targets = [target_of(box), target_of(box)]
    clean, changes = sanitize_targets(targets, [(10, 20), (20, 10)])
    assert [len(target["boxes"]) for target in clean] == [1, 0]
    assert [(change.image, change.reason) for change in changes] == [(1, "outside the image")]


def test_two_image_sizes_are_not_taken_for_one():
    sizes = [torch.Size([10, 20]), (10, 20)]
    clean, changes = sanitize_targets([target_of(GOOD), target_of(GOOD)], sizes)
    assert len(clean) == 2
    assert changes == []


@given(st.integers(0, 2**31))
def test_clipped_boxes_are_the_intersection_with_the_image(seed):
    # corners within +-100 and sides up to 50, in an image 60 high and 80 wide
    boxes = random_boxes(12, seed=seed)
    target = {"boxes": boxes, "labels": torch.arange(12)}
    (clean,), changes = sanitize_targets([target], (60, 80), "clip")
    expected = {}
    for index, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        left, top, right, bottom = max(x1, 0.0), max(y1, 0.0), min(x2, 80.0), min(y2, 60.0)
        if left < right and top < bottom:
            expected[index] = [left, top, right, bottom]
    assert clean["labels"].tolist() == list(expected)
    assert clean["boxes"].tolist() == list(expected.values())
    unchanged = set(range(12)) - {change.index for change in changes}
    assert unchanged == {i for i, box in expected.items() if box == boxes[i].tolist()}


@given(st.integers(0, 2**31))
def test_clean_targets_stay_as_they_are(seed):
    target = {"boxes": random_boxes(12, seed=seed), "labels": torch.arange(12)}
    once, _ = sanitize_targets([target], (60, 80), "clip")
    twice, changes = sanitize_targets(once, (60, 80), "error")
    assert same(twice[0], once[0])
    assert changes == []


@pytest.mark.parametrize(
    ("target", "image_size", "policy", "error", "message"),
    [
        pytest.param(
            target_of(GOOD),
            (10, 20),
            "remove",
            ValueError,
            "policy must be one of drop, clip, error, got 'remove'",
            id="unknown policy",
        ),
        pytest.param(
            {"boxes": torch.ones(2, 4).int(), "labels": torch.ones(2)},
            (10, 20),
            "drop",
            TypeError,
            r"targets\[0\]\['boxes'\] must be floating point, got torch.int32",
            id="integer boxes",
        ),
        pytest.param(
            {"boxes": torch.ones(2, 5), "labels": torch.ones(2)},
            (10, 20),
            "drop",
            ValueError,
            r"targets\[0\]\['boxes'\] must have shape \(\.\.\., 4\), got \(2, 5\)",
            id="boxes with a score",
        ),
        pytest.param(
            {"boxes": torch.tensor([]), "labels": torch.tensor([])},
            (10, 20),
            "drop",
            ValueError,
            r"targets\[0\]\['boxes'\] must have shape \(\.\.\., 4\), got \(0,\)",
            id="no boxes must be (0, 4)",
        ),
        pytest.param(
            target_of(GOOD),
            (0, 20),
            "drop",
            ValueError,
            r"image_size must be two positive \(height, width\), got \(0, 20\)",
            id="image without height",
        ),
        pytest.param(
            target_of(GOOD),
            [(10, 20), (10, 20), (10, 20)],
            "drop",
            ValueError,
            "image_size must be one pair or 1, one a target, got 3",
            id="three sizes for one target",
        ),
    ],
)
def test_rejects(target, image_size, policy, error, message):
    with pytest.raises(error, match=message):
        sanitize_targets([target], image_size, policy)


@pytest.mark.parametrize(
    ("target", "image_size"),
    [
        pytest.param(target_of(GOOD), (10, 20, 3), id="the shape of a numpy image"),
        pytest.param(target_of(GOOD), (10,), id="one side"),
        pytest.param({"boxes": torch.ones(4), "labels": torch.ones(1)}, (10, 20), id="boxes (4,)"),
        pytest.param(
            {"boxes": torch.ones(2, 4), "labels": torch.ones(1)},
            (10, 20),
            id="two boxes, one label",
        ),
    ],
)
def test_a_wrong_shape_is_a_value_error_that_names_the_argument(target, image_size):
    with pytest.raises(ValueError, match=r"image_size|targets\[0\]"):
        sanitize_targets([target], image_size)
