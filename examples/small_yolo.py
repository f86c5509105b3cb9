"""A detector of points in the style of YOLOv8, small enough to train on two CPU cores."""

from collections.abc import Sequence
from typing import Any

import torch
from small_retinanet import CHANNELS, SmallPyramid, convolution
from torch import Tensor, nn
from torch.nn.functional import softplus
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import batched_nms

import detloss
from detloss.boxes import grid_anchors, grid_points

PRIOR = 0.01
"""Probability of each class before training, so that background does not drown the start."""
SQUARE = 8.0
"""Strides in a side of an anchor, for a config whose coder needs anchors with a size."""
CANDIDATES, DETECTIONS = 300, 100
"""Boxes of an image before and after those that overlap a better one are left out."""
OVERLAP, LEAST_SCORE = 0.6, 0.02


class SmallYOLO(nn.Module):
    """Predictions at every point of a pyramid, for whatever terms a criterion has.

    It is called like a detector of torchvision: with images and targets it returns the terms of the
    loss, in evaluation mode and without targets what it finds.

    Args:
        classes: Number of classes; background needs none.
        criterion: Its coder says what the boxes are; its terms, which predictions there are.
        levels: Levels of the pyramid, the strides being 8, 16, 32 ...
        image_size: The longest side of an image.
    """

    def __init__(
        self, classes: int, criterion: detloss.DetectorLoss, *, levels: int, image_size: int
    ) -> None:
        super().__init__()
        self.criterion = criterion
        self.strides = [8 * 2**level for level in range(levels)]
        self.transform = GeneralizedRCNNTransform(
            image_size, image_size, image_mean=[0.5] * 3, image_std=[0.25] * 3
        )
        self.backbone = SmallPyramid(levels)
        self.class_tower, self.box_tower = tower(), tower()
        read = dict.fromkeys(term.reads for term in criterion.terms.values())
        widths = {"class_logits": classes, "box_regression": criterion.coder.width}
        self.outputs = nn.ModuleDict(
            {name: nn.Conv2d(CHANNELS, widths.get(name, 1), 3, padding=1) for name in read}
        )
        nn.init.constant_(self.outputs["class_logits"].bias, -torch.tensor(1 / PRIOR - 1).log())
        if "objectness" in self.outputs:
            nn.init.constant_(self.outputs["objectness"].bias, -torch.tensor(1 / PRIOR - 1).log())
        self.to(memory_format=torch.channels_last)

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]] | None = None
    ) -> Any:
        """The terms of the loss by name, or without targets what is found in each image."""
        given = [tuple(image.shape[-2:]) for image in images]
        batch, targets = self.transform(list(images), targets)
        features = list(self.backbone(batch.tensors).values())
        anchors, level_sizes = self.anchors(features)
        predictions = self.predict(features, anchors)
        if targets is not None:
            output = self.criterion(
                predictions,
                targets,
                anchors=anchors,
                level_sizes=level_sizes,
                image_size=batch.tensors.shape[-2:],
            )
            return output.terms
        found = [self.find(predictions, anchors, image) for image in range(len(images))]
        return self.transform.postprocess(found, batch.image_sizes, given)

    def anchors(self, features: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """The point of each cell, or squares where boxes are shifted and scaled anchors."""
        shapes = [level.shape[-2:] for level in features]
        if self.criterion.coder.type_name == "delta":
            anchors, sizes = grid_anchors(shapes, self.strides, scales=[SQUARE], ratios=[1.0])
        else:
            anchors, sizes = grid_points(shapes, self.strides)
        return anchors.to(features[0].device), sizes

    def predict(self, features: Sequence[Tensor], anchors: Tensor) -> dict[str, Tensor]:
        """Name -> (B, A, K), the levels one after the other."""
        of_levels: dict[str, list[Tensor]] = {name: [] for name in self.outputs}
        for level in features:
            of_class, of_box = self.class_tower(level), self.box_tower(level)
            for name, output in self.outputs.items():
                values = output(of_class if name == "class_logits" else of_box)
                of_levels[name].append(values.flatten(2).transpose(1, 2))
        predictions = {name: torch.cat(values, 1) for name, values in of_levels.items()}
        coder = self.criterion.coder
        if coder.type_name == "ltrb":  # distances, which are not negative
            distances = softplus(predictions["box_regression"] + 1)
            side = 1.0 if coder.normalize else (anchors[:, 2:] - anchors[:, :2])[:, [0, 1, 0, 1]]
            predictions["box_regression"] = distances * side
        return predictions

    def find(
        self, predictions: dict[str, Tensor], anchors: Tensor, image: int
    ) -> dict[str, Tensor]:
        """The boxes of one image that score best and do not overlap a better one."""
        probabilities = predictions["class_logits"][image].sigmoid()
        for name in ("objectness", "centerness"):
            if name in predictions:
                probabilities = probabilities * predictions[name][image].sigmoid()
        scores, places = probabilities.flatten().topk(min(CANDIDATES, probabilities.numel()))
        place, labels = places // probabilities.shape[1], places % probabilities.shape[1]
        regression = predictions["box_regression"][image, place]
        boxes = self.criterion.coder.decode(regression, anchors[place])
        kept = batched_nms(boxes, scores, labels, OVERLAP)
        kept = kept[scores[kept] > LEAST_SCORE][:DETECTIONS]
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}


def tower() -> nn.Sequential:
    """Two convolutions over a level of the pyramid."""
    return nn.Sequential(convolution(CHANNELS, CHANNELS), convolution(CHANNELS, CHANNELS))
