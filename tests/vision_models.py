"""Detectors of torchvision's, small enough to be built and run in a moment."""

from dataclasses import dataclass

import torch
from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign

CLASSES = 5
SIZE = {"min_size": 64, "max_size": 64}
THREE_RATIOS = ((0.5, 1.0, 2.0),) * 2


class TwoLevels(nn.Module):
    """A backbone with what behaves differently in training mode: batch norm and dropout."""

    def __init__(self, channels=8):
        super().__init__()
        self.out_channels = channels
        self.fine = nn.Sequential(
            nn.Conv2d(3, channels, 8, stride=8),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Dropout(0.5),
        )
        self.coarse = nn.MaxPool2d(2)

    def forward(self, x):
        fine = self.fine(x)
        return {"fine": fine, "coarse": self.coarse(fine)}


def retinanet(cls=RetinaNet):
    anchors = AnchorGenerator(((16, 24), (32, 48)), THREE_RATIOS)
    return cls(TwoLevels(), num_classes=CLASSES, anchor_generator=anchors, **SIZE)


def fcos():
    anchors = AnchorGenerator(((8,), (16,)), ((1.0,),) * 2)
    backbone = TwoLevels(32)  # the head normalises 32 groups of channels
    return FCOS(backbone, num_classes=CLASSES, anchor_generator=anchors, **SIZE)


def ssd():
    anchors = DefaultBoxGenerator([[2], [2]], scales=[0.2, 0.4, 0.8])
    backbone = TwoLevels()
    backbone.out_channels = [8, 8]  # of each level
    return SSD(backbone, anchors, (64, 64), num_classes=CLASSES + 1)


def faster_rcnn():
    return FasterRCNN(
        TwoLevels(),
        rpn_anchor_generator=AnchorGenerator(((16,), (32,)), THREE_RATIOS),
        box_roi_pool=MultiScaleRoIAlign(["fine", "coarse"], output_size=2, sampling_ratio=1),
        box_head=nn.Sequential(nn.Flatten(), nn.Linear(32, 16)),
        box_predictor=BoxPredictor(),
        **SIZE,
    )


class BoxPredictor(nn.Module):
    """The second stage of `faster_rcnn`."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Linear(16, CLASSES + 1)
        self.deltas = nn.Linear(16, (CLASSES + 1) * 4)

    def forward(self, features):
        return self.logits(features), self.deltas(features)


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    Attributes:
        build: Makes one.
        config: The config that equals torchvision's own loss.
        names: A name of a loss of the model after `use_loss` -> its name before.
        first_label: Of an object.
        part: Where the criterion is, "" for the model itself.
    """

    build: object
    config: str
    names: dict[str, str]
    first_label: int = 0
    part: str = ""

    def part_of(self, model):
        return model.get_submodule(self.part)

    def targets(self):
        """Three objects in the first of two images, none in the second."""
        boxes = torch.tensor([[10.0, 10, 30, 34], [4, 20, 60, 62], [33, 3, 50, 21]])
        return [
            {"boxes": boxes, "labels": torch.tensor([2, 0, 4]) + self.first_label},
            {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
        ]


TERMS = {"classification": "classification", "box": "bbox_regression"}
PROPOSALS = {name: name for name in ("loss_objectness", "loss_rpn_box_reg")}
KINDS = {
    "retinanet": Kind(retinanet, "retinanet", TERMS),
    "fcos": Kind(fcos, "fcos", {**TERMS, "centerness": "bbox_ctrness"}),
    "ssd": Kind(ssd, "ssd", TERMS, first_label=1),
    "faster_rcnn": Kind(faster_rcnn, "rpn", PROPOSALS, first_label=1, part="rpn"),
}
