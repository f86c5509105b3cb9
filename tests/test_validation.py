"""Debug validation: each message, and that good input passes."""

import re

import pytest
import torch
from scenes import build, grid_anchors, random_predictions, random_targets

from detloss.boxes import convert_boxes
from detloss.matchers import Matches, MaxIoUMatcher
from detloss.validation import (
    validate_given_matches,
    validate_matches,
    validate_predictions,
    validate_targets,
    validate_terms,
    validation_wanted,
)

NAN, INF = float("nan"), float("inf")
PIXELS = [grid_anchors()]  # from -4 to 68
FRACTIONS = [grid_anchors() / 64]


def objects(boxes, **others):
    """A target of class 0 throughout."""
    boxes = torch.tensor(boxes).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.zeros(len(boxes), dtype=torch.long), **others}


def exactly(message):
    return f"^{re.escape(message)}$"


@pytest.mark.parametrize(
    "counts", [[3, 0], [0, 0], []], ids=["an empty image", "no object at all", "no image"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_good_input_passes(counts, dtype):
    targets = random_targets(counts)
    for target, count in zip(targets, counts, strict=True):
        target["boxes"] = target["boxes"].to(dtype)
        target["ignore"] = torch.arange(count) == 1
        target["weights"] = torch.arange(count, dtype=dtype)
    anchors = PIXELS * len(counts)
    validate_targets(targets, classes=3, anchors=anchors)
    validate_predictions(random_predictions(2, 5))
    matcher = MaxIoUMatcher()
    validate_matches(
        targets, [matcher(a, t["boxes"]) for a, t in zip(anchors, targets, strict=True)]
    )


@pytest.mark.parametrize(
    ("key", "index", "value", "message"),
    [
        ("labels", 1, 3, "targets[1]['labels'][1] must be in 0..2, got 3"),
        ("labels", 0, -1, "targets[1]['labels'][0] must be in 0..2, got -1"),
        (
            "boxes",
            2,
            torch.tensor([0.0, 0, NAN, 1]),
            "targets[1]['boxes'][2] must be finite, got [0.0, 0.0, nan, 1.0]",
        ),
        (
            "boxes",
            1,
            torch.tensor([5.1, 0, 4, 1]),
            "targets[1]['boxes'][1] must have x2 >= x1 and y2 >= y1, got [5.1, 0.0, 4.0, 1.0]",
        ),
        ("weights", 2, -1.5, "targets[1]['weights'][2] must be finite and at least 0, got -1.5"),
        ("weights", 0, NAN, "targets[1]['weights'][0] must be finite and at least 0, got nan"),
        ("weights", 0, INF, "targets[1]['weights'][0] must be finite and at least 0, got inf"),
    ],
    ids=[
        "label too large",
        "negative label",
        "nan",
        "one inverted in four: not the format",
        "negative weight",
        "nan weight",
        "infinite weight",
    ],
)
def test_a_bad_target_is_named(key, index, value, message):
    targets = random_targets([1, 3])
    targets[1]["weights"] = torch.ones(3)
    targets[1][key][index] = value
    with pytest.raises(ValueError, match=exactly(message)):
        validate_targets(targets, classes=3, anchors=PIXELS * 2)


def test_ignore_regions_need_no_label_weight_or_order_of_corners():
    target = objects([[8.0, 8, 40, 40], [30, 30, 10, 10]], ignore=torch.tensor([False, True]))
    target["labels"][1] = -1
    target["weights"] = torch.tensor([1, NAN])
    validate_targets([target], classes=3, anchors=PIXELS)
    target["boxes"][1, 0] = INF
    with pytest.raises(ValueError, match=r"targets\[0\]\['boxes'\]\[1\] must be finite"):
        validate_targets([target], classes=3, anchors=PIXELS)


@pytest.mark.parametrize("source", ["xywh", "cxcywh"])
def test_where_half_the_boxes_are_inverted_their_format_is_asked_for(source):
    """(x, y, 20, 10) is inverted where x > 20 or y > 10."""
    targets = [
        objects([[4.0, 5, 20, 10]]),
        objects([[40.0, 30, 20, 10], [8, 8, 4, 4]], ignore=torch.tensor([False, True])),
    ]
    message = (
        "targets[1]['boxes'][0] must have x2 >= x1 and y2 >= y1, got [40.0, 30.0, 20.0, 10.0]; "
        "1 of 2 boxes are inverted: did you mean convert_boxes(boxes, 'xywh', 'xyxy'), "
        "or from 'cxcywh'?"
    )
    with pytest.raises(ValueError, match=exactly(message)):
        validate_targets(targets, classes=1, anchors=PIXELS * 2)
    for target in targets:
        target["boxes"] = convert_boxes(target["boxes"], source, "xyxy")
    validate_targets(targets, classes=1, anchors=PIXELS * 2)


@pytest.mark.parametrize(
    ("boxes", "anchors", "message", "source", "cure"),
    [
        (
            [0.125, 0.25, 0.75, 0.5],
            PIXELS,
            "got [0.125, 0.25, 0.75, 0.5]; no box reaches further, like fractions of the image, "
            "and the anchors reach 68, like pixels: did you mean "
            "convert_boxes(boxes, 'xyxyn', 'xyxy', image_size=(height, width))?",
            "xyxyn",
            "xyxy",
        ),
        (
            [8.0, 16, 48, 32],
            FRACTIONS,
            "got [8.0, 16.0, 48.0, 32.0]; no box reaches further, like pixels, "
            "and the anchors reach 1.0625, like fractions of the image: did you mean "
            "convert_boxes(boxes, 'xyxy', 'xyxyn', image_size=(height, width))?",
            "xyxy",
            "xyxyn",
        ),
    ],
    ids=["fractions among pixels", "pixels among fractions"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_boxes_of_another_unit_than_the_anchors_are_named(
    boxes, anchors, message, source, cure, dtype
):
    """The second image's second box reaches furthest; all that follows from it is exact."""
    targets = [objects([]), objects([[0.0, 0, 0.5, 0.25], boxes])]
    for target in targets:
        target["boxes"] = target["boxes"].to(dtype)
    message = f"targets[1]['boxes'][1] must be in the unit of the anchors, {message}"
    with pytest.raises(ValueError, match=exactly(message)):
        validate_targets(targets, classes=1, anchors=anchors * 2)
    for target in targets:
        target["boxes"] = convert_boxes(target["boxes"], source, cure, image_size=(64, 64))
    validate_targets(targets, classes=1, anchors=anchors * 2)


def small_batch(boxes, reach):
    """Boxes and anchors of a batch, which may lie in any of its images."""
    anchors = [torch.zeros(0, 4), torch.tensor([[0, 0, reach, reach]])]
    return [objects(boxes[:1]), objects(boxes[1:])], anchors


@pytest.mark.parametrize(
    ("boxes", "reach"),
    [
        pytest.param([[-2.5, 0, 1, 1]], 640.0, id="beyond where fractions reach"),
        pytest.param([[0.0, 0, 1, 1], [9, 9, 40, 40]], 640.0, id="tiny beside large"),
        pytest.param([[0.0, 0, 0, 0]], 640.0, id="padding of zeros"),
        pytest.param([[0.0, 0, 1, 1]], 13.0, id="anchors in cells of a 13 x 13 grid"),
        pytest.param([[9.0, 9, 19, 19]], 2.0, id="boxes in cells of a 19 x 19 grid"),
        pytest.param([[9.0, 9, 40, 40]], 0.0, id="no anchors to speak of"),
        pytest.param([[0.5, 0.5, 1.5, 1.0]], 1.9, id="fractions, both"),
    ],
)
def test_units_that_may_be_the_same_pass(boxes, reach):
    targets, anchors = small_batch(boxes, reach)
    validate_targets(targets, classes=1, anchors=anchors)


@pytest.mark.parametrize(
    ("boxes", "reach"),
    [
        pytest.param([[0.0, 0, 1, 1]], 640.0, id="a box within the first pixel, alone"),
        pytest.param([[-0.5, 0, 2, 1]], 20.0, id="fractions at most, pixels at least"),
        pytest.param([[9.0, 9, 20, 10]], 2.0, id="pixels at least, fractions at most"),
    ],
)
def test_units_that_cannot_be_the_same_raise(boxes, reach):
    targets, anchors = small_batch(boxes, reach)
    with pytest.raises(ValueError, match="must be in the unit of the anchors"):
        validate_targets(targets, classes=1, anchors=anchors)


def test_an_ignore_region_says_nothing_of_the_unit():
    boxes = [[0.0, 0, 0.5, 0.5], [0, 0, 40, 40]]
    target = objects(boxes, ignore=torch.tensor([False, True]))
    with pytest.raises(ValueError, match=r"\[0\] must be in the unit .*, got \[0.0, 0.0, 0.5"):
        validate_targets([target], classes=1, anchors=PIXELS)


def test_a_bad_prediction_is_named():
    predictions = {"box": torch.zeros(2, 3, 4)}
    predictions["box"][1, 2, 0] = -torch.inf
    with pytest.raises(ValueError, match="'box', image 1: .*anchor 2, column 0 must be.*got -inf"):
        validate_predictions(predictions)


def test_ground_truths_that_no_anchor_answers_for_are_counted_and_the_first_is_named():
    """Of two equal boxes the first gets the anchors; (90, 90) is off the grid."""
    twice, off = [8.0, 8, 24, 24], [90.0, 90, 99, 99]
    targets = [
        objects([]),
        objects([off, twice, twice], ignore=torch.tensor([True, False, False])),
        objects([off]),
    ]
    matches = [
        MaxIoUMatcher()(PIXELS[0], target["boxes"], gt_ignore=target.get("ignore"))
        for target in targets
    ]
    message = (
        "2 of 3 ground truths matched no anchor, first "
        "targets[1]['boxes'][2], [8.0, 8.0, 24.0, 24.0]"
    )
    with pytest.warns(UserWarning, match=exactly(message)) as caught:
        validate_matches(targets, matches)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert targets[1]["ignore"].tolist() == [True, False, False]

    targets[1]["ignore"][2] = True
    validate_matches(targets[:2], matches[:2])


@pytest.mark.parametrize(
    ("loss", "factor", "got"),
    [(1.0, -INF, "-inf"), ([1.0, 2.0], torch.tensor([1, NAN]), "[1.0, nan]")],
    ids=["of the batch", "of each image"],
)
def test_the_first_term_that_is_not_finite_is_named(loss, factor, got):
    loss = torch.tensor(loss, requires_grad=True)
    validate_terms({"classification": loss, "box": loss})
    terms = {"classification": loss, "box": loss * factor, "centerness": loss * INF}
    with pytest.raises(ValueError, match=exactly(f"terms['box'] must be finite, got {got}")):
        validate_terms(terms)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(value, True) for value in ("1", "true", "YES", "On")]
    + [(value, False) for value in ("", "0", "False", "no", "OFF")],
)
def test_the_environment_switches_validation(monkeypatch, value, wanted):
    monkeypatch.setenv("DETLOSS_VALIDATE", value)
    assert validation_wanted() is wanted


def test_without_the_variable_validation_is_off(monkeypatch):
    monkeypatch.delenv("DETLOSS_VALIDATE", raising=False)
    assert not validation_wanted()


def test_another_value_of_the_variable_is_an_error(monkeypatch):
    monkeypatch.setenv("DETLOSS_VALIDATE", "Maybe")
    message = (
        "DETLOSS_VALIDATE must be one of 1, true, yes, on, or one of 0, false, no, off, "
        "or empty, got 'Maybe'"
    )
    with pytest.raises(ValueError, match=exactly(message)):
        validation_wanted()


def test_pairs_of_given_matches_name_anchors_and_ground_truths_that_are_there():
    target = {"boxes": torch.zeros(2, 4), "labels": torch.zeros(2).long()}
    none = torch.zeros(3, dtype=torch.bool)
    for pair in ([3, 0], [0, 2], [-1, 0]):
        match = Matches(none.long(), none, none, pairs=torch.tensor([[2, 1], pair]))
        message = re.escape(
            f"matches[0].pairs[1] must be an anchor in 0..2 and a ground truth in 0..1, got {pair}"
        )
        with pytest.raises(ValueError, match=message):
            validate_given_matches([target], [match])


def test_a_ground_truth_of_a_pair_is_matched():
    target = {"boxes": torch.zeros(2, 4), "labels": torch.zeros(2).long()}
    first = torch.tensor([True])
    match = Matches(first.long() * 0, first, ~first, pairs=torch.tensor([[0, 0], [0, 1]]))
    validate_matches([target], [match])  # a warning would be an error


@pytest.mark.parametrize("bad", [-0.5, 1.5, NAN])
def test_probabilities_are_in_0_to_1(bad):
    predictions = random_predictions(2, 64)
    predictions["class_probabilities"] = predictions.pop("class_logits").detach().sigmoid()
    criterion = build()
    criterion.validate = True
    targets = random_targets([2, 1])
    assert criterion(predictions, targets, anchors=PIXELS[0]).total.isfinite()
    predictions["class_probabilities"][1, 5, 2] = bad
    message = f"predictions['class_probabilities'][1, 5, 2] must be in [0, 1], got {bad}"
    with pytest.raises(ValueError, match=exactly(message)):
        criterion(predictions, targets, anchors=PIXELS[0])


@pytest.mark.parametrize("score", [-0.5, 1.5, NAN])
def test_rejects_a_score_that_is_no_quality(score):
    positive = torch.tensor([False, True, True])
    scores = torch.tensor([7.0, 1.0, score])  # nobody reads that of background
    matches = Matches(torch.zeros(3, dtype=torch.long), positive, positive & False, score=scores)
    message = f"matches[0].score[2] must be in [0, 1], got {score}"
    with pytest.raises(ValueError, match=exactly(message)):
        validate_given_matches(random_targets([1]), [matches])
    scores[2] = 0.0
    validate_given_matches(random_targets([1]), [matches])
