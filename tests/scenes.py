"""A small batch for the detector head: anchors, predictions and targets."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import detloss
from detloss.registry import CODERS, REGRESSION
from detloss.terms import BoxTerm

CLASSES = 3
SIZE = 64.0


def build(**sections: Mapping[str, Any]) -> detloss.DetectorLoss:
    """A criterion like RetinaNet's with GIoU, some of its sections replaced.

    Its coder is one that has the space of the box loss.
    """
    config = {
        "matcher": {"type": "max_iou"},
        "classification": {"type": "sigmoid_focal"},
        "box": {"type": "giou"},
    } | sections
    return detloss.build({"coder": coder_of(config["box"]["type"])} | config)


def coder_of(box_loss: str) -> dict[str, str]:
    """The delta coder, or where it does not have the space of that loss the first that has."""
    space = REGRESSION[box_loss].space
    fit = [name for name in CODERS.names() if space in CODERS[name].spaces]
    return {"type": "delta" if "delta" in fit else fit[0]}


def grid_anchors(step: float = 8.0, side: float = 16.0) -> Tensor:
    """(64, 4) square anchors on a grid over a 64 x 64 image."""
    centre = torch.arange(step / 2, SIZE, step)
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    centre = torch.stack([x, y], dim=-1).reshape(-1, 2)
    return torch.cat([centre - side / 2, centre + side / 2], dim=-1)


def random_predictions(
    batch: int, anchors: int, *, classes: int = CLASSES, width: int = 4, seed: int = 0
) -> dict[str, Tensor]:
    """Head outputs that require a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "class_logits": torch.randn(batch, anchors, classes, generator=generator).requires_grad_(),
        "box_regression": (
            torch.randn(batch, anchors, width, generator=generator) / 4
        ).requires_grad_(),
    }


def predictions_for(
    criterion: detloss.DetectorLoss | detloss.LayeredLoss,
    batch: int,
    anchors: int,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Whatever the terms of a criterion read, requiring a gradient; by set where it has layers."""
    if isinstance(criterion, detloss.LayeredLoss):
        return {
            name: predictions_for(layer.criterion, batch, anchors, seed=seed + place)
            for place, (name, layer) in enumerate(criterion.layers.items())
        }
    generator = torch.Generator().manual_seed(seed)
    predictions = {}
    for term in criterion.terms.values():
        if isinstance(term, BoxTerm):
            shape = (batch, anchors, criterion.coder.width)
        elif term.one_logit:
            shape = (batch, anchors)
        else:
            shape = (batch, anchors, CLASSES + term.loss.background_columns)
        values = torch.randn(shape, generator=generator) / 2
        predictions.setdefault(term.reads, values.requires_grad_())
    return predictions


def call_of(criterion: detloss.DetectorLoss | detloss.LayeredLoss) -> dict[str, Any]:
    """What a call takes beside predictions, targets and anchors; these are those of grid_anchors.

    They are of one pyramid level, or of as many as the coder has strides or the matcher ranges.
    """
    of_levels = [
        getattr(getattr(criterion, part, None), option, None)
        for part, option in (("coder", "strides"), ("matcher", "scale_ranges"))
    ]
    others = [8] * (max(len(option or [0]) for option in of_levels) - 1)
    call: dict[str, Any] = {"image_size": (SIZE, SIZE), "level_sizes": [64 - sum(others), *others]}
    return call | ({"progress": 0.5} if isinstance(criterion, detloss.LayeredLoss) else {})


def leaves(predictions: Mapping[str, Any]) -> list[Tensor]:
    """The tensors of `predictions_for`."""
    return [
        leaf
        for value in predictions.values()
        for leaf in (leaves(value) if isinstance(value, Mapping) else [value])
    ]


def random_targets(counts: list[int], *, seed: int = 0) -> list[dict[str, Tensor]]:
    """One target an image with that many objects, each at least 8 wide and overlapping anchors."""
    generator = torch.Generator().manual_seed(seed)
    targets = []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * (SIZE - 28)
        size = torch.rand(count, 2, generator=generator) * 20 + 8
        labels = torch.randint(0, CLASSES, (count,), generator=generator)
        targets.append({"boxes": torch.cat([corner, corner + size], dim=-1), "labels": labels})
    return targets


def gradients(total: Tensor, predictions: dict[str, Tensor]) -> list[Tensor]:
    """The gradient of `total` for each prediction."""
    return list(torch.autograd.grad(total, list(predictions.values()), retain_graph=True))
