"""A criterion in what looks like a detector of Ultralytics', which is not needed here."""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import detloss
from detloss.boxes import grid_points
from detloss.integrations.ultralytics import YOLOLoss, use_loss

CLASSES = 3
STRIDES = [8.0, 16.0]
SHAPES = [(8, 12), (4, 6)]
ANCHORS = 96 + 24


class Head(nn.Module):
    def __init__(self, reg_max):
        super().__init__()
        self.reg_max = reg_max
        self.stride = torch.tensor(STRIDES)
        self.weight = nn.Parameter(torch.ones(()))


class Detector(nn.Module):
    """A DetectionModel: it asks for its criterion as theirs does, and predicts fixed numbers."""

    def __init__(self, reg_max=16, heads=("",), epochs=5):
        super().__init__()
        self.model = nn.Sequential(Head(reg_max))
        self.args = SimpleNamespace(epochs=epochs)
        self.heads = heads
        self.criterion = None

    def forward(self, images):
        generator = torch.Generator().manual_seed(1)
        feats = [torch.zeros(images, 4, *shape) for shape in SHAPES]

        def head():
            boxes = torch.rand(images, 4 * self.model[-1].reg_max, ANCHORS, generator=generator)
            scores = torch.randn(images, CLASSES, ANCHORS, generator=generator) - 3
            weight = self.model[-1].weight
            return {"boxes": boxes * 3 * weight, "scores": scores * weight, "feats": feats}

        preds = {name: head() for name in self.heads}
        preds = preds.get("", preds)
        return preds if self.training else (torch.zeros(images, 4 + CLASSES, ANCHORS), preds)

    def loss(self, batch):
        return self.criterion(self(len(batch["img"])), batch)


class Trainer:
    """A YOLO or a trainer: something with callbacks, which makes its model later."""

    def __init__(self, start_epoch=0):
        self.callbacks = []
        self.model = "yolov8n.yaml"
        self.start_epoch, self.epochs, self.ema = start_epoch, 9, None

    def add_callback(self, event, function):
        assert event == "on_pretrain_routine_end"
        self.callbacks.append(function)

    def train(self, model, ema=None):
        self.model, self.ema = model, ema
        for function in self.callbacks:
            function(self)


def batch():
    """Two images of 96 x 64, the objects not in order; the third image has none."""
    return {
        "img": torch.zeros(3, 3, 64, 96),
        "batch_idx": torch.tensor([1.0, 0, 1]),
        "cls": torch.tensor([[2.0], [0], [1]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.25, 0.5], [0.25, 0.5, 0.5, 0.25], [0.5, 0.5, 1, 1]]),
    }


TARGETS = [
    {"boxes": torch.tensor([[0.0, 24, 48, 40]]), "labels": torch.tensor([0])},
    {
        "boxes": torch.tensor([[36.0, 16, 60, 48], [0, 0, 96, 64]]),
        "labels": torch.tensor([2, 1]),
    },
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
]


def by_hand(criterion, preds, **call):
    anchors, level_sizes = grid_points(SHAPES, STRIDES)
    read = {"class_logits": "scores", "box_regression": "boxes"}

    def of(head):
        return {name: head[theirs].transpose(1, 2) for name, theirs in read.items()}

    predictions = (
        of(preds)
        if "boxes" in preds
        else {
            name: of(preds[theirs])
            for name, theirs in (("one_to_many", "one2many"), ("one_to_one", "one2one"))
        }
    )
    return criterion(
        predictions,
        TARGETS,
        anchors=anchors,
        level_sizes=level_sizes,
        image_size=(64, 96),
        **call,
    )


@pytest.mark.parametrize(("config", "reg_max"), [("yolov8", 16), ("yolo11_l1", 1)])
@pytest.mark.parametrize("training", [True, False])
def test_it_is_the_criterion_of_predictions_and_batch(config, reg_max, training):
    model, criterion = Detector(reg_max).train(training), detloss.load_config(config)
    assert use_loss(model, criterion) is model
    loss, items = model.loss(batch())
    expected = by_hand(criterion, model.train()(3))
    assert_close(loss, torch.stack(list(expected.terms.values())))
    assert_close(items, {name: term.detach() / 3 for name, term in expected.terms.items()})
    assert not any(item.requires_grad for item in items.values())
    loss.sum().backward()
    assert model.model[-1].weight.grad.isfinite()


def test_a_loss_that_is_not_multiplied_by_the_images_is_shown_as_it_is():
    config = detloss.load_config("yolov8").config()
    criterion = detloss.build({**config, "normalizer": {"type": "positives"}})
    loss, items = use_loss(Detector(), criterion).loss(batch())
    assert_close(torch.stack(list(items.values())), loss.detach())


@pytest.mark.parametrize(("config", "reg_max"), [("yolov10_e2e", 16), ("yolo26", 1)])
def test_two_heads_and_a_schedule_over_the_epochs(config, reg_max):
    model = Detector(reg_max, ("one2many", "one2one"))
    criterion = detloss.load_config(config)
    use_loss(model, criterion)
    for progress in (0.0, 0.25, 0.5, 0.75, 1.0, 1.0):
        loss, items = model.loss(batch())
        expected = by_hand(criterion, model(3), progress=progress)
        assert_close(loss, torch.stack(list(expected.terms.values())))
        if progress == 0.5:
            weights = {"one_to_many": 0.45, "one_to_one": 0.55}
            for name, term in expected.terms.items():
                assert_close(items[name], term.detach() / 3 / weights[name.split("/")[0]])
        model.criterion.update()


def test_the_columns_may_be_called_otherwise():
    criterion = detloss.load_config("yolov8")
    model = use_loss(Detector(), criterion, names={"classification": "cls_loss"})
    names = ["cls_loss", "box/ciou", "box/distribution_focal"]
    assert list(model.loss(batch())[1]) == names
    with pytest.raises(ValueError, match="names must be of the terms classification, .*, got cls"):
        use_loss(model, criterion, names={"cls": "cls_loss"})


def test_a_memory_learns_from_training_alone():
    config = detloss.load_config("yolov8").config()
    criterion = detloss.build({**config, "normalizer": {"type": "moving_average"}})
    model = use_loss(Detector().eval(), criterion)
    before = copy.deepcopy(criterion.state_dict())
    model.loss(batch())
    assert_close(criterion.state_dict(), before)
    model.train().loss(batch())
    assert criterion.normalizer.average != before["normalizer.average"]


# --- Their trainer --------------------------------------------------------------------------------


def test_each_training_of_a_yolo_has_the_loss_and_so_has_its_moving_average():
    trainer = use_loss(Trainer(), detloss.load_config("yolov8"))
    for _ in range(2):
        model = Detector()
        ema = copy.deepcopy(model).eval()
        trainer.train(nn.DataParallel(model), SimpleNamespace(ema=ema))
        assert isinstance(model.criterion, YOLOLoss)
        assert_close(ema.loss(batch()), model.loss(batch()))


def test_a_resumed_training_goes_on_with_the_schedule():
    trainer = use_loss(Trainer(start_epoch=4), detloss.load_config("yolo26"))
    model = Detector(1, ("one2many", "one2one"))
    ema = copy.deepcopy(model)
    trainer.train(model, SimpleNamespace(ema=ema))
    assert model.criterion.progress == 0.5  # the 5th of 9 epochs
    model.criterion.update()
    assert ema.criterion.progress == 5 / 8


def test_a_yolo_whose_model_does_not_fit_is_refused_at_once():
    yolo = Trainer()
    yolo.model = Detector(reg_max=1)
    with pytest.raises(ValueError, match="{type: ltrb, normalize: true}, got .*distribution"):
        use_loss(yolo, detloss.load_config("yolov8"))
    assert not yolo.callbacks


def test_a_checkpoint_holds_nothing_of_it_and_a_saved_model_can_be_loaded():
    model = use_loss(Detector(), detloss.load_config("yolov8"))
    assert model.state_dict().keys() == Detector().state_dict().keys()
    expected = model.loss(batch())
    assert_close(pickle.loads(pickle.dumps(model)).loss(batch()), expected)
    written = copy.deepcopy(model)
    written.criterion = None  # as their trainer does
    assert b"detloss" not in pickle.dumps(written)


# --- What does not fit ----------------------------------------------------------------------------


def test_predictions_of_another_task_are_refused():
    model = use_loss(Detector(), detloss.load_config("yolov8"))
    preds = {**model(3), "proto": torch.zeros(())}
    with pytest.raises(ValueError, match="a detector with one head, .*, got boxes, .*, proto"):
        model.criterion(preds, batch())


@pytest.mark.parametrize(
    ("config", "heads", "words"),
    [
        ("yolo11_l1", ("one2many", "one2one"), "with one head, .*, got one2many, one2one"),
        ("yolo26", ("",), "with one2many and one2one, .*, got boxes, scores, feats"),
    ],
)
def test_another_number_of_heads_is_refused(config, heads, words):
    model = use_loss(Detector(1, heads), detloss.load_config(config))
    with pytest.raises(ValueError, match=words):
        model.loss(batch())


def test_other_sets_of_predictions_are_refused():
    config = {**detloss.load_config("yolo11_l1").config(), "layers": {"first": {}, "last": {}}}
    with pytest.raises(ValueError, match="one_to_many and one_to_one, got first, last"):
        use_loss(Detector(1), detloss.build(config))


@pytest.mark.parametrize("wrong", [nn.Linear(1, 1), None, nn.Sequential(nn.Linear(1, 1))])
def test_another_model_is_refused(wrong):
    with pytest.raises(TypeError, match=f"a DetectionModel .*, got {type(wrong).__name__}"):
        use_loss(wrong, detloss.load_config("yolov8"))


def test_what_is_no_criterion_is_refused():
    with pytest.raises(TypeError, match="criterion must be a DetectorLoss, .*, got MSELoss"):
        use_loss(Detector(), nn.MSELoss())
