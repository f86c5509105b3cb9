"""The detector of points: a loss for every config of its kind, and boxes where it looks."""

from pathlib import Path

import pytest
import torch
from digits import digit_scenes
from small_retinanet import RetinaNet
from small_yolo import SQUARE, STRIDES, SmallYOLO
from torch.testing import assert_close
from train_detector import main, small_detector

import detloss
from detloss.boxes import convert_boxes, grid_points
from detloss.classification import SigmoidFocalLoss
from detloss.coders import LTRBCoder
from detloss.matchers import FCOSMatcher, MaxIoUMatcher
from detloss.registry import CODERS
from detloss.regression import GIoULoss
from detloss.terms import BoxTerm, ClassificationTerm

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = ["yolov8", "yolox", "fcos", "atss", "gfl", "rtmdet", "yolo11_l1", "paa", "tood", "vfnet"]


def model_of(name):
    torch.manual_seed(0)
    return SmallYOLO(3, detloss.load_config(name), image_size=96)


def of_points(coder, **parts):
    """A model of a criterion with that coder."""
    config = {
        "matcher": {"type": "fcos"},
        "coder": coder,
        "classification": {"type": "sigmoid_focal"},
        "box": {"type": "giou"},
    }
    return SmallYOLO(3, detloss.build(config | parts), image_size=96)


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


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in CODERS.names()),
        *((n, {"strides": STRIDES}) for n in CODERS.names() if "strides" in CODERS[n].option_names),
    ],
)
def test_whatever_the_coder_it_is_the_same_box(name, options):
    """At the start a square about the point, of ``2 ln(1 + e)`` strides, unless there are bins."""
    model = of_points({"type": name, **options})
    for parameter in model.outputs["box_regression"].parameters():
        torch.nn.init.zeros_(parameter)
    features = [torch.rand(2, 64, 96 // stride, 96 // stride) for stride in STRIDES]
    grid = model.grid(features)
    predicted = model.predict(features, grid)["box_regression"]
    strides = [stride.expand(2, -1) for stride in grid.strides]
    boxes = model.criterion.coder.decode(predicted, grid.anchors.expand(2, -1, -1), *strides)
    sides = 2 * 1.3132617 if model.criterion.coder.bins == 1 else model.criterion.coder.bins - 1
    points = convert_boxes(grid.points, "xyxy", "cxcywh")
    expected = torch.cat([points[:, :2], sides * points[:, 2:]], 1).expand(2, -1, -1)
    assert_close(convert_boxes(boxes, "xyxy", "cxcywh"), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("matcher", "side"),
    [
        pytest.param({"type": "max_iou"}, SQUARE, id="compares boxes"),
        pytest.param({"type": "atss"}, SQUARE, id="compares them as they are"),
        pytest.param({"type": "atss", "scale": 8}, 1.0, id="makes boxes of points"),
        pytest.param({"type": "sim_ota"}, 1.0, id="looks at points"),
    ],
)
def test_anchors_have_a_size_where_the_matcher_needs_it(matcher, side):
    objectness = {"type": "sigmoid_cross_entropy"}
    model = of_points({"type": "ltrb"}, matcher=matcher, objectness=objectness)
    grid = model.grid([torch.rand(1, 64, 12, 12), torch.rand(1, 64, 6, 6), torch.rand(1, 64, 3, 3)])
    points, level_sizes = grid_points([(12, 12), (6, 6), (3, 3)], STRIDES)
    assert torch.equal(grid.points, points)
    assert grid.level_sizes == level_sizes
    expected = torch.tensor([1, 1, side, side]) * convert_boxes(points, "xyxy", "cxcywh")
    assert_close(convert_boxes(grid.anchors, "xyxy", "cxcywh"), expected)


def test_parts_of_one_s_own_get_the_model_of_their_kind():
    class Overlaps(MaxIoUMatcher):
        """Of no registered name."""

    class Centres(FCOSMatcher):
        """Of no registered name."""

    class Distances(LTRBCoder):
        """Of no registered name."""

    data = digit_scenes(seed=0, train=2, test=1)
    terms = [ClassificationTerm(SigmoidFocalLoss()), BoxTerm(GIoULoss())]
    model = small_detector(data, detloss.DetectorLoss(matcher=Overlaps(), terms=terms))
    assert isinstance(model, RetinaNet)
    criterion = detloss.DetectorLoss(matcher=Centres(), coder=Distances(), terms=terms)
    assert isinstance(small_detector(data, criterion), SmallYOLO)


@pytest.mark.parametrize("name", ["yolov8", "yolox", "fcos", "atss", "tood"])
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("yolov10", "a config without layers is needed, got one_to_many", id="layers"),
        pytest.param("rpn", "class_logits and box_regression is needed, got obj", id="no class"),
        pytest.param("foveabox", "one entry for each of 3 levels, got 5", id="other levels"),
    ],
)
def test_a_config_that_no_model_is_for_is_told_in_one_line(name, message, tmp_path, capsys):
    arguments = ["--config", str(CONFIGS / f"{name}.yaml"), "--out", str(tmp_path)]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
