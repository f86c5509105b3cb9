"""What a criterion is given: each thing that is missing or does not fit is named."""

import re

import numpy as np
import pytest
import torch
from scenes import CLASSES, build, grid_anchors, random_predictions, random_targets

import detloss
from detloss.matchers import Matches
from detloss.registry import CLASSIFICATION
from detloss.tensors import without_host_sync

ANCHORS = grid_anchors()


def matches_of(anchors):
    none = torch.zeros(anchors, dtype=torch.bool)
    return Matches(none.long(), none, none)


def call(predictions=None, targets=None, **options):
    predictions = random_predictions(1, len(ANCHORS)) if predictions is None else predictions
    targets = random_targets([2]) if targets is None else targets
    return build()(predictions, targets, **({"anchors": ANCHORS} | options))


@pytest.mark.parametrize("key", ["labels", "ignore", "weights", "class_mask", "boxes"])
@pytest.mark.parametrize("kind", [list, np.array])
def test_an_entry_of_a_target_is_a_tensor(key, kind):
    (target,) = random_targets([2])
    target[key] = kind([True, False])
    message = rf"targets\[0\]\['{key}'\] must be a tensor, got {type(target[key]).__name__}"
    with pytest.raises(TypeError, match=message):
        call(targets=[target])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"anchors": None}, r"anchors must be a tensor \(A, 4\), or a list of one .*, got None"),
        (
            {"level_sizes": [60, 3]},
            r"level_sizes must .* to the 64 .*, got \[60, 3\], together 63; a level has height x",
        ),
        ({"level_sizes": [-4, 68]}, r"level_sizes must be >= 0 and .*, got \[-4, 68\]"),
        ({"matches": [matches_of(9)]}, r"matches\[0\] must be of the 64 anchors.*, got 9"),
        ({"matches": []}, "matches must be 1, one an image, got 0"),
        ({"normalizer": 0}, "normalizer of 'classification' must be a finite number > 0, got 0"),
        ({"normalizer": {"box": -1.0}}, "normalizer of 'box' must be a finite number > 0, got -1"),
        ({"normalizer": float("nan")}, "must be a finite number > 0, got nan"),
        ({"normalizer": torch.tensor(-1.0)}, "'classification' must be at least 0, got -1.0"),
        ({"normalizer": torch.tensor([torch.nan])}, r"must be at least 0, got \[nan\]"),
        ({"targets": []}, "targets must be of at least one image, got none"),
        (
            {"targets": [{"boxes": ANCHORS[:1]}]},
            r"targets\[0\] must have 'labels', got \['boxes'\]",
        ),
    ],
)
def test_what_does_not_fit_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        call(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"predictions": (1, 2)}, "predictions must be a mapping .*, got tuple"),
        ({"targets": random_targets([2])[0]}, "targets must be a list .*, got dict"),
        ({"targets": [ANCHORS]}, r"targets\[0\] must be a mapping, got Tensor"),
        ({"level_sizes": [32.0, 32.0]}, r"level_sizes must be a list of integers, got \[32.0, "),
        ({"level_sizes": 64}, "level_sizes must be a list of integers, got 64"),
        ({"level_sizes": "64"}, "level_sizes must be a list of integers, got '64'"),
        ({"level_sizes": ["64"]}, r"level_sizes must be a list of integers, got \['64'\]"),
        ({"level_sizes": [(8, 8)]}, r"level_sizes must be a list of integers, got \[\(8, 8\)\]"),
        ({"level_sizes": [True, 63]}, "level_sizes must be a list of integers, got .True"),
        ({"matches": [(ANCHORS, ANCHORS)]}, r"matches\[0\] must be Matches, got tuple"),
        ({"matches": matches_of(64)}, "matches must be a list with one .* an image, got Matches"),
        ({"normalizer": True}, "normalizer of 'classification' must be a number .*, got bool"),
        ({"normalizer": torch.tensor(True)}, "must be a number or a tensor, got torch.bool"),
        ({"normalizer": [3.0]}, "normalizer of 'classification' must be a number .*, got list"),
    ],
)
def test_what_has_another_type_is_named(options, message):
    with pytest.raises(TypeError, match=message):
        call(**options)


def test_predictions_are_not_left_out():
    with pytest.raises(TypeError, match="predictions must be a mapping .*, got NoneType"):
        build()(None, random_targets([1]), anchors=ANCHORS)


def test_no_image_has_levels_of_any_size():
    assert build().match([], anchors=ANCHORS, level_sizes=[64]) == []


def test_probabilities_of_a_softmax_are_refused():
    """Their logits would be those of as many yes-or-no questions: another distribution."""
    criterion = build(classification={"type": "softmax_cross_entropy"})
    predictions = random_predictions(1, len(ANCHORS), classes=CLASSES + 1)
    probabilities = predictions.pop("class_logits").softmax(-1)
    predictions["class_probabilities"] = probabilities
    with pytest.raises(ValueError, match="softmax_cross_entropy shares one probability among"):
        criterion(predictions, random_targets([2]), anchors=ANCHORS)


def test_a_class_is_needed():
    predictions = random_predictions(1, len(ANCHORS), classes=0)
    with pytest.raises(ValueError, match=r"shape \(B, A, C\), C >= 1, got \(1, 64, 0\)"):
        call(predictions)


def transposed(name):
    predictions = random_predictions(2, len(ANCHORS))
    return predictions | {name: predictions[name].transpose(1, 2)}


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        pytest.param(
            transposed("class_logits"),
            r"predictions\['class_logits'\] must have shape \(2, 64, \.\.\.\), one for each target "
            r"and anchor, got \(2, 3, 64\)",
            id="transposed logits",
        ),
        pytest.param(
            transposed("box_regression"),
            r"predictions\['box_regression'\] must have shape \(B, A, 4\), got \(2, 4, 64\)",
            id="transposed deltas",
        ),
        pytest.param(
            random_predictions(2, 60),
            r"anchors must be 60, like the anchors of predictions\['class_logits'\] \(2, 60, 3\), "
            "got 64",
            id="anchors of other maps",
        ),
        pytest.param(
            random_predictions(3, 64),
            r"targets must be 3, like the images of predictions\['class_logits'\] \(3, 64, 3\), "
            "got 2",
            id="a target is missing",
        ),
    ],
)
def test_the_one_that_does_not_fit_is_blamed(predictions, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call(predictions, random_targets([1, 2]))


@pytest.mark.parametrize(
    ("anchors", "error", "message"),
    [
        pytest.param(ANCHORS.numpy(), TypeError, "a list of one .*, got ndarray", id="an array"),
        pytest.param(
            [ANCHORS.numpy()] * 2, TypeError, r"anchors\[0\] must be a tensor", id="arrays"
        ),
        pytest.param("grid", TypeError, "a list of one for each image, got str", id="a word"),
        pytest.param(64, TypeError, "a list of one for each image, got int", id="a number"),
        pytest.param((ANCHORS, [64]), TypeError, r"anchors\[1\] .*, got list", id="with sizes"),
        pytest.param(
            ANCHORS.expand(2, 64, 4), ValueError, r"\(A, 4\), got \(2, 64, 4\)", id="stack"
        ),
        pytest.param(
            list(ANCHORS.split([48, 16])),
            ValueError,
            "in the first, got 16 .*torch.cat",
            id="levels",
        ),
        pytest.param(
            list(ANCHORS.split([32, 24, 8])),
            ValueError,
            "2 here, got a list of 3.*torch.cat",
            id="3",
        ),
    ],
)
def test_anchors_of_another_kind(anchors, error, message):
    with pytest.raises(error, match=message):
        call(random_predictions(2, len(ANCHORS)), random_targets([1, 2]), anchors=anchors)


@pytest.mark.parametrize(
    "what", ["class_logits", "box_regression", "anchors", "boxes", "labels", "weights", "ignore"]
)
def test_what_is_on_another_device_is_named(what):
    predictions, targets = random_predictions(2, len(ANCHORS)), random_targets([1, 2])
    anchors = [ANCHORS, ANCHORS.clone()]
    if what == "anchors":
        anchors[1] = anchors[1].to("meta")
    elif what in predictions:
        predictions[what] = predictions[what].to("meta")
    else:
        targets[1][what] = targets[1].get(what, torch.ones(2).bool()).to("meta")
    with pytest.raises(ValueError, match=rf"{what}.* device of the anchors, cpu, got meta"):
        call(predictions, targets, anchors=anchors)


def test_predictions_share_images_and_anchors():
    predictions = random_predictions(1, len(ANCHORS))
    predictions["box_regression"] = predictions["box_regression"][:, :9]
    message = r"\['box_regression'\] must have shape \(1, 64, \.\.\.\), .*, got \(1, 9, 4\)"
    with pytest.raises(ValueError, match=message):
        call(predictions)


def test_one_set_of_anchors_an_image_is_the_same():
    predictions, targets = random_predictions(2, len(ANCHORS)), random_targets([2, 1])
    shared = call(predictions, targets)
    apart = call(predictions, targets, anchors=[ANCHORS, ANCHORS.clone()])
    assert torch.equal(shared.total, apart.total)


@pytest.mark.parametrize(
    ("key", "meant"),
    [("weight", "weights"), ("Labels", "labels"), ("box", "boxes"), ("classmask", "class_mask")],
)
def test_a_near_miss_of_a_key_is_an_error(key, meant):
    (target,) = random_targets([2])
    target[key] = torch.ones(2)
    with pytest.raises(ValueError, match=rf"targets\[0\] has '{key}'; did you mean '{meant}'\?"):
        call(targets=[target])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"label": 1}, "targets[0] has 'label'; did you mean 'labels'?"),
        ({"boxes": ANCHORS[:1], "label": 1}, "targets[0] has 'label'; did you mean 'labels'?"),
        ({"Boxes": ANCHORS[:1], "labels": 1}, "targets[0] has 'Boxes'; did you mean 'boxes'?"),
        (
            {"bbox": ANCHORS[:1], "labels": torch.tensor([1])},
            "targets[0] must have 'boxes', got ['bbox', 'labels']; did you mean 'boxes' where it "
            "says 'bbox'?",
        ),
        (
            {"boxes": ANCHORS[:1], "class_labels": torch.tensor([1])},
            "targets[0] must have 'labels', got ['boxes', 'class_labels']; did you mean 'labels' "
            "where it says 'class_labels'?",
        ),
        ({0: ANCHORS[:1]}, "targets[0] must have 'boxes', got [0]"),
    ],
)
def test_a_near_miss_is_named_before_what_is_missing(target, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call(targets=[target])


def test_a_near_miss_among_predictions():
    predictions = random_predictions(1, len(ANCHORS))
    predictions["cls_logits"] = predictions.pop("class_logits")
    with pytest.raises(ValueError, match=r"; did you mean 'class_logits' where it says 'cls_log"):
        call(predictions)


@pytest.mark.parametrize(
    ("entries", "error", "message"),
    [
        pytest.param(
            {"boxes": torch.tensor([])},
            ValueError,
            r"got \(0,\); .* \.reshape\(-1, 4\)",
            id="boxes",
        ),
        pytest.param(
            {"boxes": torch.zeros(0, 4), "labels": torch.tensor([])},
            TypeError,
            r"must be integers, got torch.float32; .* torch.zeros\(0, dtype=torch.long\)",
            id="labels",
        ),
        pytest.param({"labels": 1}, TypeError, "must be a tensor, got int", id="a number"),
        pytest.param(
            {"weights": torch.tensor([1, -1.0])}, ValueError, "at least 0, got -1", id="-1"
        ),
        pytest.param({"weights": torch.tensor([1, torch.nan])}, ValueError, "got nan", id="nan"),
        pytest.param({"weights": torch.tensor([1, torch.inf])}, ValueError, "got inf", id="inf"),
    ],
)
def test_an_entry_that_is_wrong_says_what_is_right(entries, error, message):
    (target,) = random_targets([2])
    with pytest.raises(error, match=message):
        call(targets=[target | entries])


def test_a_weight_of_an_ignore_region_is_not_looked_at():
    (target,) = random_targets([2])
    target |= {"weights": torch.tensor([1, -1.0]), "ignore": torch.tensor([False, True])}
    assert call(targets=[target]).total.isfinite()


def test_weights_are_not_looked_at_where_that_is_a_host_sync():
    (target,) = random_targets([2])
    with without_host_sync():
        call(targets=[target | {"weights": torch.tensor([1, -1.0])}])


def test_another_key_is_not_read():
    (target,) = random_targets([2])
    plain = call(targets=[target])
    other = target | {"area": torch.ones(2), "image_id": 7, "masks": None, 3: "three"}
    assert torch.equal(call(targets=[other]).total, plain.total)


LEARNABLE = [name for name in CLASSIFICATION.names() if CLASSIFICATION[name].differentiable]


def call_with_labels(name, labels, *, over="all", sampler="all", **entries):
    """A criterion's call on two images, the labels being those of the second."""
    background = CLASSIFICATION[name].background_columns
    predictions = random_predictions(2, len(ANCHORS), classes=CLASSES + background)
    targets = random_targets([1, 3])
    targets[1] |= {"labels": torch.tensor(labels), **entries}
    criterion = build(
        classification={"type": name, "over": over}, box={"type": "giou"}, sampler={"type": sampler}
    )
    return criterion(predictions, targets, anchors=ANCHORS)


@pytest.mark.parametrize("sampler", ["all", "hard_negative"])
@pytest.mark.parametrize("over", ["all", "positives"])
@pytest.mark.parametrize("name", LEARNABLE)
@pytest.mark.parametrize("bad", [-1, -100, CLASSES, CLASSES + 1, 255])
def test_a_label_out_of_range_is_an_error_on_a_cpu(name, over, sampler, bad):
    """It would be background, and its box would be trained."""
    if (over, sampler) == ("positives", "hard_negative"):
        pytest.skip("the sampler asks for a loss over all anchors")
    message = rf"^targets\[1\]\['labels'\]\[1\] must be in 0\.\.{CLASSES - 1}, got {bad}$"
    with pytest.raises(ValueError, match=message):
        call_with_labels(name, [0, bad, 1], over=over, sampler=sampler)
    ignore = torch.tensor([True, False, False])
    with pytest.raises(ValueError, match=message):  # beside an ignore region, too
        call_with_labels(name, [-1, bad, 1], over=over, sampler=sampler, ignore=ignore)


@pytest.mark.parametrize("name", LEARNABLE)
@pytest.mark.parametrize("label", [-1, -100, CLASSES, 255])
def test_an_ignore_region_may_have_any_label(name, label):
    ignore = torch.tensor([False, True, False])
    found = call_with_labels(name, [0, label, 1], ignore=ignore)
    expected = call_with_labels(name, [0, 2, 1], ignore=ignore)
    assert found.total == expected.total


def test_labels_are_not_looked_at_where_that_is_a_host_sync():
    with without_host_sync():
        assert call_with_labels("sigmoid_focal", [0, -100, 1]).total.isfinite()


def test_without_classes_labels_mean_nothing():
    criterion = detloss.build({"matcher": {"type": "max_iou"}, "box": {"type": "giou"}})
    targets = random_targets([2])
    targets[0]["labels"][0] = -100
    predictions = random_predictions(1, len(ANCHORS))
    assert criterion(predictions, targets, anchors=ANCHORS).total.isfinite()
