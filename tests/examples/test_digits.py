"""The scenes of handwritten digits."""

import digits
import numpy as np
import pytest
import torch
from digits import digit_scenes, stamp


def test_scenes_depend_on_the_seed_alone():
    one, same, other = (digit_scenes(seed=seed) for seed in (0, 0, 1))
    image, target = one.train[5]
    assert torch.equal(image, same.train[5][0])
    assert torch.equal(target["boxes"], same.train[5][1]["boxes"])
    assert not torch.equal(image, other.train[5][0])
    assert torch.equal(one.test[0][0], other.test[0][0]), "test scenes are the same for all"


def test_scenes_hold_one_to_six_digits_inside_the_image_and_apart():
    data = digit_scenes(seed=0)
    for index in range(40):
        image, target = data.train[index]
        boxes = target["boxes"]
        assert image.shape == (3, 128, 128)
        assert image.min() >= 0
        assert image.max() <= 1
        assert 1 <= len(boxes) <= 6
        assert boxes.min() >= 0
        assert boxes.max() <= 128
        assert target["labels"].max() < len(data.classes)
        shared = torch.minimum(boxes[:, None, 2:], boxes[:, 2:]) - torch.maximum(
            boxes[:, None, :2], boxes[:, :2]
        )
        overlapping = (shared > 0).all(-1).fill_diagonal_(False)
        assert not overlapping.any()


def test_boxes_are_tight_around_the_digits(monkeypatch):
    grey = np.full((128, 128, 3), 102 / 255, dtype=np.float32)
    monkeypatch.setattr(digits, "background", lambda rng, size, brightness: grey.copy())
    scenes = digit_scenes(seed=0).train
    for index in range(20):
        image, target = scenes[index]
        painted = ((image * 255 - 102).abs() > 0.5).any(dim=0)
        for x1, y1, x2, y2 in target["boxes"].int().tolist():
            inside = painted[y1:y2, x1:x2]
            edges = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
            assert all(edge.any() for edge in edges), "a side without a pixel of the digit"
            painted[y1:y2, x1:x2] = False
        assert not painted.any(), "a pixel of a digit outside its box"


@pytest.mark.parametrize("height", [18.0, 48.0])
def test_a_stamp_has_about_the_height_asked_for(height):
    shapes = [stamp(digit, height=height).shape for digit in digit_scenes(seed=0).test.digits]
    assert max(tall for tall, _ in shapes) <= 1.1 * height
    assert np.median([tall for tall, _ in shapes]) > 0.8 * height


def test_no_digit_of_the_test_scenes_is_trained_on():
    data = digit_scenes(seed=0)
    trained = {digit.tobytes() for digit in data.train.digits}
    assert not trained & {digit.tobytes() for digit in data.test.digits}
    assert len(data.train.digits) + len(data.test.digits) == 1797
