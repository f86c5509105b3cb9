"""What a criterion is given: each thing that is missing or does not fit is named."""

import numpy as np
import pytest
import torch
from scenes import build, grid_anchors, random_predictions, random_targets

ANCHORS = grid_anchors()


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
        ({"anchors": None}, r"anchors must be \(A, 4\), or one such an image, got None"),
        ({"level_sizes": [60, 3]}, r"level_sizes must add up to the 64 anchors.*, got \[60, 3\]"),
        ({"matches": []}, "matches must be 1, one an image, got 0"),
        ({"normalizer": 0}, "normalizer of 'classification' must be a finite number > 0, got 0"),
        ({"normalizer": {"box": -1.0}}, "normalizer of 'box' must be a finite number > 0, got -1"),
        ({"normalizer": float("nan")}, "must be a finite number > 0, got nan"),
        ({"targets": []}, "targets must be 1, one an image, got 0"),
        (
            {"targets": [{"boxes": ANCHORS[:1]}]},
            r"targets\[0\] must have 'labels', got \['boxes'\]",
        ),
    ],
)
def test_what_does_not_fit_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        call(**options)


def test_predictions_share_images_and_anchors():
    predictions = random_predictions(1, len(ANCHORS))
    predictions["box_regression"] = predictions["box_regression"][:, :9]
    message = r"\['box_regression'\] must have shape \(1, 64, 4\), got \(1, 9, 4\)"
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


def test_another_key_is_nobody_s_business():
    (target,) = random_targets([2])
    plain = call(targets=[target])
    other = target | {"area": torch.ones(2), "image_id": 7, "masks": None}
    assert torch.equal(call(targets=[other]).total, plain.total)
