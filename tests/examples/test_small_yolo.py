"""The detector of points: a loss for every config of its kind, and boxes where it looks."""

from pathlib import Path

import pytest
import torch
from small_yolo import SmallYOLO
from train_detector import main

import detloss

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = ["yolov8", "yolox", "fcos", "atss", "gfl", "rtmdet", "yolo11_l1"]


def model_of(name):
    torch.manual_seed(0)
    return SmallYOLO(3, detloss.load_config(name), levels=3, image_size=96)


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_predictions_of_every_config_of_points(name):
    model = model_of(name).train()
    target = {"boxes": torch.tensor([[10.0, 20, 60, 70]]), "labels": torch.tensor([1])}
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    terms = model([torch.rand(3, 96, 96), torch.rand(3, 64, 96)], [target, empty])
    assert list(terms) == list(model.criterion.terms)
    sum(terms.values()).backward()
    for parameter in model.parameters():
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", ["yolov8", "yolox", "fcos", "atss"])
def test_what_it_finds_is_in_the_image_s_own_pixels(name):
    """Of an image that is half as large as what the model sees."""
    model = model_of(name).eval()
    for parameter in model.outputs["class_logits"].parameters():
        parameter.data += 0.1  # sure enough to be found
    with torch.no_grad():
        (found,) = model([torch.rand(3, 48, 48)])
    assert len(found["boxes"])
    assert found["labels"].max() < 3
    centres = (found["boxes"][:, :2] + found["boxes"][:, 2:]) / 2
    assert ((centres > -48) & (centres < 96)).all()
    assert (found["scores"].diff() <= 0).all()


def test_training_takes_the_model_that_the_config_is_for(tmp_path, capsys):
    arguments = ["--config", str(CONFIGS / "yolov8.yaml"), "--steps", "1", "--batch-size", "2"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "detections.png").is_file()
    assert "yolov8, test images" in capsys.readouterr().out


def test_a_config_with_layers_is_told_in_one_line(tmp_path, capsys):
    arguments = ["--config", str(CONFIGS / "yolov10.yaml"), "--out", str(tmp_path)]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert "a config without layers is needed" in captured.out + captured.err
