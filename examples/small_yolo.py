"""A detector of points in the style of YOLOv8, small enough to train on two CPU cores."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from small_retinanet import CHANNELS, SmallPyramid, convolution
from torch import Tensor, nn
from torch.nn.functional import softplus
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import batched_nms

import detloss
from detloss.boxes import grid_anchors, grid_points
from detloss.classification import prior_bias
from detloss.coders import LTRBCoder
from detloss.integrations.checks import check_background
from detloss.terms import BoxTerm, ScoreTerm, Term

STRIDES = (8, 16, 32)
SQUARE = 8.0
"""Strides in a side of an anchor, for a matcher whose anchors need a size."""
CANDIDATES, DETECTIONS = 300, 100
"""Boxes of an image before and after those that overlap a better one are left out."""
OVERLAP, LEAST_SCORE = 0.6, 0.02


class SmallYOLO(nn.Module):
    """Predictions at every point of a pyramid, for whatever terms a criterion has.

    It is called like a detector of torchvision: with images and targets it returns the terms of the
    loss, in evaluation mode and without targets what it finds.

    The head says how far the sides of a box are from its point, in strides. What the terms read is
    the box as the criterion's coder encodes it, or the logits of the distances where it has bins.

    Args:
        classes: Number of classes; background needs none.
        criterion: Its terms say which predictions there are; its coder, what the boxes are; its
            matcher, whether they are predicted at points or at anchors with a size.
        image_size: The longest side of an image.

    Raises:
        ValueError: If the criterion learns no classes or no boxes, or has a column for background.
    """

    def __init__(self, classes: int, criterion: detloss.DetectorLoss, *, image_size: int) -> None:
        super().__init__()
        self.criterion = criterion
        self.transform = GeneralizedRCNNTransform(
            image_size, image_size, image_mean=[0.5] * 3, image_std=[0.25] * 3
        )
        self.backbone = SmallPyramid(len(STRIDES))
        self.class_tower, self.box_tower = tower(), tower()
        check_background(criterion, column=False)
        terms = {term.reads: term for term in criterion.terms.values()}
        if not terms.keys() >= {"class_logits", "box_regression"}:
            got = " and ".join(terms)
            raise ValueError(f"a config of class_logits and box_regression is needed, got {got}")
        self.boxes = [name for name, term in terms.items() if isinstance(term, BoxTerm)]
        self.scores = [name for name, term in terms.items() if isinstance(term, ScoreTerm)]
        widths = {"class_logits": classes, **dict.fromkeys(self.boxes, criterion.coder.width)}
        self.outputs = nn.ModuleDict(
            {name: last_layer(widths.get(name, 1), term) for name, term in terms.items()}
        )
        self.to(memory_format=torch.channels_last)

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]] | None = None
    ) -> Any:
        """The terms of the loss by name, or without targets what is found in each image."""
        given = [tuple(image.shape[-2:]) for image in images]
        batch, targets = self.transform(list(images), targets)
        features = list(self.backbone(batch.tensors).values())
        grid = self.grid(features)
        predictions = self.predict(features, grid)
        if targets is not None:
            output = self.criterion(
                predictions,
                targets,
                anchors=grid.anchors,
                level_sizes=grid.level_sizes,
                image_size=batch.tensors.shape[-2:],
            )
            return output.terms
        found = [self.find(predictions, grid, image) for image in range(len(images))]
        return self.transform.postprocess(found, batch.image_sizes, given)

    def grid(self, features: Sequence[Tensor]) -> "Grid":
        """Where predictions are made: points, or squares around them where anchors need a size."""
        shapes = [level.shape[-2:] for level in features]
        device = features[0].device
        points, level_sizes = grid_points(shapes, STRIDES, device=device)
        anchors = points
        if self.criterion.matcher.needs_sizes:
            anchors, _ = grid_anchors(shapes, STRIDES, scales=[SQUARE], offset=0.5, device=device)
        strides = [] if self.criterion.coder.strides is None else [points[:, 2] - points[:, 0]]
        return Grid(points, anchors, level_sizes, strides)

    def predict(self, features: Sequence[Tensor], grid: "Grid") -> dict[str, Tensor]:
        """Name -> (B, A, K), the levels one after the other."""
        of_levels: dict[str, list[Tensor]] = {name: [] for name in self.outputs}
        for level in features:
            of_class, of_box = self.class_tower(level), self.box_tower(level)
            for name, output in self.outputs.items():
                values = output(of_class if name == "class_logits" else of_box)
                of_levels[name].append(values.flatten(2).transpose(1, 2))
        predictions = {name: torch.cat(values, 1) for name, values in of_levels.items()}
        coder = self.criterion.coder
        for name in self.boxes if coder.bins == 1 else ():
            distances = softplus(predictions[name] + 1)
            boxes = LTRBCoder().decode(distances, grid.points.expand_as(distances))
            strides = [stride.expand(boxes.shape[:-1]) for stride in grid.strides]
            predictions[name] = coder.encode(boxes, grid.anchors.expand_as(boxes), *strides)
        return predictions

    def find(self, predictions: dict[str, Tensor], grid: "Grid", image: int) -> dict[str, Tensor]:
        """The boxes of one image that score best and do not overlap a better one.

        A score is the geometric mean of the class's probability and of what else is predicted.
        """
        probabilities = predictions["class_logits"][image].sigmoid()
        for name in self.scores:
            probabilities = probabilities * predictions[name][image].sigmoid()
        probabilities = probabilities.pow(1 / (1 + len(self.scores)))
        scores, places = probabilities.flatten().topk(min(CANDIDATES, probabilities.numel()))
        place, labels = places // probabilities.shape[1], places % probabilities.shape[1]
        regression = predictions["box_regression"][image, place]
        strides = [stride[place] for stride in grid.strides]
        boxes = self.criterion.coder.decode(regression, grid.anchors[place], *strides)
        kept = batched_nms(boxes, scores, labels, OVERLAP)
        kept = kept[scores[kept] > LEAST_SCORE][:DETECTIONS]
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}


class Grid(NamedTuple):
    """Where a detector predicts.

    Attributes:
        points: (A, 4) the square of each cell.
        anchors: (A, 4) what the criterion is told: these, or larger squares.
        level_sizes: How many there are of each level.
        strides: (A,) the strides as the one entry, for a coder that asks for them.
    """

    points: Tensor
    anchors: Tensor
    level_sizes: list[int]
    strides: list[Tensor]


def tower() -> nn.Sequential:
    """Two convolutions over a level of the pyramid."""
    return nn.Sequential(convolution(CHANNELS, CHANNELS), convolution(CHANNELS, CHANNELS))


def last_layer(width: int, term: Term) -> nn.Conv2d:
    """What `term` reads of the features, (B, width, H, W).

    A question that every anchor is asked starts with a "no", which most have to learn.
    """
    layer = nn.Conv2d(CHANNELS, width, 3, padding=1)
    if term.over == "all":
        nn.init.constant_(layer.bias, prior_bias())
    return layer
