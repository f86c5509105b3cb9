"""Debug validation: each message, and that good input passes."""

import pytest
import torch
from scenes import random_predictions, random_targets

from detloss.validation import validate_predictions, validate_targets

NAN = float("nan")


def test_good_input_passes():
    validate_targets(random_targets([3, 0]), classes=3)
    validate_predictions(random_predictions(2, 5))


@pytest.mark.parametrize(
    ("key", "index", "value", "message"),
    [
        ("labels", 1, 3, r"targets\[1\]\['labels'\]\[1\] must be in 0..2, got 3"),
        ("labels", 0, -1, r"targets\[1\]\['labels'\]\[0\] must be in 0..2, got -1"),
        (
            "boxes",
            2,
            torch.tensor([0.0, 0, NAN, 1]),
            r"targets\[1\]\['boxes'\]\[2\] must be finite, got \[0.0, 0.0, nan, 1.0\]",
        ),
        (
            "boxes",
            1,
            torch.tensor([5.0, 0, 4, 1]),
            r"targets\[1\]\['boxes'\]\[1\] must have x2 >= x1 and y2 >= y1, got \[5.0",
        ),
    ],
    ids=["label too large", "negative label", "nan", "inverted"],
)
def test_a_bad_target_is_named(key, index, value, message):
    targets = random_targets([1, 3])
    targets[1][key][index] = value
    with pytest.raises(ValueError, match=message):
        validate_targets(targets, classes=3)


def test_ignore_regions_need_no_label():
    targets = random_targets([2])
    targets[0]["labels"][1] = -1
    targets[0]["ignore"] = torch.tensor([False, True])
    validate_targets(targets, classes=3)


def test_a_bad_prediction_is_named():
    predictions = {"box": torch.zeros(2, 3, 4)}
    predictions["box"][1, 2, 0] = -torch.inf
    with pytest.raises(ValueError, match="'box', image 1: .*anchor 2, column 0 must be.*got -inf"):
        validate_predictions(predictions)
