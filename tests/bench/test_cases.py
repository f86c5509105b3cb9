"""The benchmark's cases, shrunk: every runner agrees with detloss. No time is tested."""

from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

import detloss
from detloss.bench.cases import COUNTED, TIMED, criteria
from detloss.bench.cases.matching import STRIDES, matching, objects
from detloss.bench.launches import count
from detloss.bench.measure import compare
from detloss.boxes import convert_boxes, grid_points

CPU, META = torch.device("cpu"), torch.device("meta")
EAGER = [name for name in TIMED if "compiled" not in name]
TORCHVISION = {"focal", "focal-one-hot", "giou-1000", "match-10", "criterion", "criterion-fcos"}
PYTORCH = {"indices-softmax_cross_entropy", "cross-entropy-one-hot"}


@pytest.mark.parametrize("name", EAGER)
def test_every_runner_agrees(name):
    case = TIMED[name](CPU, 0.002)
    assert next(iter(case.runners)) == "detloss"
    for runner in case.runners:
        found = compare(case, runner, CPU, seconds=0)
        assert found.milliseconds > 0
        assert found.cured > 0
        assert found.difference < (1e-2 if "bf16" in name else 1e-5), found


@pytest.mark.gpu
@pytest.mark.parametrize("name", EAGER)
def test_every_runner_agrees_on_a_gpu(name):
    device = torch.device("cuda")
    case = TIMED[name](device, 0.002)
    for runner in case.runners:
        found = compare(case, runner, device, seconds=0)
        assert found.cured is None
        assert found.difference < (1e-2 if "bf16" in name else 1e-5), found


@pytest.mark.parametrize("name", EAGER)
def test_the_loss_for_a_compiler_is_that_of_the_first_runner(name):
    case = TIMED[name](CPU, 0.002)
    if case.loss is None:
        assert name.startswith(("match", "assign"))
    else:
        value, *_ = case.runners["detloss"]()
        assert torch.equal(case.loss(*case.predictions), value)


@pytest.mark.parametrize("name", COUNTED)
def test_detloss_is_counted_without_values(name):
    case = COUNTED[name](META, 0.002)
    assert count(case.runners["detloss"], case.input_bytes).launches > 0


def test_the_peers_are_there_where_torchvision_is():
    for name in TORCHVISION:
        assert "torchvision" in TIMED[name](CPU, 0.002).runners, name
    for name in PYTORCH:
        assert "PyTorch" in TIMED[name](CPU, 0.002).runners, name


def test_ultralytics_is_given_the_same_batch(monkeypatch):
    """By a stand-in of its loss, which says what it was given."""
    given = {}

    class Loss:
        def __init__(self, model):
            (head,) = model.model
            given.update(strides=head.stride.tolist(), gains=vars(model.args), classes=head.nc)

        def __call__(self, preds, batch):
            given.update(batch, feats=[tuple(level.shape[-2:]) for level in preds["feats"]])
            return preds["scores"].mean((0, 2)) + preds["boxes"].mean(), {}

    module = SimpleNamespace(v8DetectionLoss=Loss)
    monkeypatch.setattr(criteria, "optional", {"ultralytics.utils.loss": module}.get)
    case = criteria.criterion(CPU, 0.002, name="yolov8", counts=(2, 0, 1), levels=3)
    value, of_logits, of_boxes = case.runners["ultralytics"]()
    logits, boxes = case.predictions
    assert_close(value, logits.mean((0, 1)).sum() + 80 * boxes.mean())
    assert of_logits.shape == logits.shape
    assert of_boxes.shape == boxes.shape
    assert given["strides"] == [8, 16, 32]
    assert given["feats"] == [(16, 16), (8, 8), (4, 4)]
    weights = detloss.load_config("yolov8").terms
    assert given["gains"] == {
        "box": weights["box/ciou"].weight,
        "cls": weights["classification"].weight,
        "dfl": weights["box/distribution_focal"].weight,
    }
    assert given["classes"] == logits.shape[-1]
    assert given["batch_idx"].tolist() == [0, 0, 2]
    assert given["cls"].tolist() == [0, 1, 0]
    truths = torch.cat([objects(2, 128, CPU, 0), objects(1, 128, CPU, 2)])
    assert_close(convert_boxes(128 * given["bboxes"], "cxcywh", "xyxy"), truths)


def test_mmdetection_s_assigner_is_given_the_same_squares(monkeypatch):
    """By a stand-in that gives every anchor to the first object."""
    given = []

    class Assigner:
        def __init__(self, topk):
            assert topk == 9

        def assign(self, priors, level_sizes, truth):
            given.append((priors.priors, level_sizes, truth.bboxes))
            return SimpleNamespace(gt_inds=torch.ones(len(priors.priors), dtype=torch.long))

    modules = {
        "mmdet.models.task_modules.assigners": SimpleNamespace(ATSSAssigner=Assigner),
        "mmengine.structures": SimpleNamespace(InstanceData=SimpleNamespace),
    }
    monkeypatch.setitem(matching.__globals__, "optional", modules.get)
    case = matching(CPU, 0.002, counts=(3, 1), name="atss")
    assert [found.unique().tolist() for found in case.runners["mmdet"]()] == [[0], [0]]
    (squares, level_sizes, truths), _ = given
    points, sizes = grid_points([(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)], STRIDES)
    assert level_sizes == sizes
    assert_close(
        convert_boxes(squares, "xyxy", "cxcywh")[:, :2], (points[:, :2] + points[:, 2:]) / 2
    )
    assert_close(squares[:, 2:] - squares[:, :2], 8 * (points[:, 2:] - points[:, :2]))
    assert torch.equal(truths, objects(3, 128, CPU, 0))


def test_both_sides_of_the_compiled_case_are_compiled(monkeypatch):
    compiled = []

    def compiler(function, **options):
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compiler)
    case = TIMED["focal-compiled"](CPU, 0.002)
    assert list(case.runners) == ["detloss", "torchvision"]
    assert len(compiled) == 2
    assert compare(case, "torchvision", CPU, seconds=0).difference < 1e-5
