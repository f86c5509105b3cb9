"""Cases of a whole training loss: match, encode, every term, backward."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

import detloss
from detloss.bench.cases.matching import STRIDES, anchors_of, cells_along, objects
from detloss.bench.cases.runners import forward_backward, normal, optional
from detloss.bench.measure import Case
from detloss.boxes import convert_boxes

KEYS = {
    "class_logits": "cls_logits",
    "box_regression": "bbox_regression",
    "centerness": "bbox_ctrness",
}
"""Our names of predictions -> torchvision's."""

Total = Callable[[Mapping[str, Tensor]], Tensor]
"""The loss of predictions by their names, each (B, A, K)."""


class Batch(NamedTuple):
    """Square images with their objects, and the anchors at which a detector predicts.

    Attributes:
        side: Of the images, in pixels.
        classes: How many there are.
        strides: Of the pyramid's levels.
        anchors: (A, 4).
        level_sizes: Anchors of each level.
        targets: One an image.
    """

    side: int
    classes: int
    strides: Sequence[int]
    anchors: Tensor
    level_sizes: list[int]
    targets: list[dict[str, Tensor]]


def criterion(
    device: torch.device,
    scale: float,
    *,
    name: str = "retinanet",
    counts: Sequence[int] = (7, 20),
    side: int = 640,
    classes: int = 80,
    levels: int = len(STRIDES),
) -> Case:
    """The loss of a shipped config on a batch whose images have that many objects."""
    side = side if scale == 1 else 128
    nine = name.startswith("retinanet")
    anchors, level_sizes = anchors_of(side, device, nine=nine, levels=levels)
    targets = [
        {
            "boxes": objects(count, side, device, seed),
            "labels": (torch.arange(count) % classes).to(device),
        }
        for seed, count in enumerate(counts)
    ]
    ours = cast(detloss.DetectorLoss, detloss.load_config(name))
    predictions = predicted(ours, (len(counts), len(anchors), classes), device)
    names, values = list(predictions), list(predictions.values())

    def of_names(total: Total) -> Callable[..., Tensor]:
        return lambda *values: total(dict(zip(names, values, strict=True)))

    def detloss_total(heads: Mapping[str, Tensor]) -> Tensor:
        total: Tensor = ours(heads, targets, anchors=anchors, level_sizes=level_sizes).total
        return total

    runners = {"detloss": forward_backward(of_names(detloss_total), *values)}
    if name in PEERS:
        peer, loss_of = PEERS[name]
        batch = Batch(side, classes, STRIDES[:levels], anchors, level_sizes, targets)
        if theirs := loss_of(batch):
            runners[peer] = forward_backward(of_names(theirs), *values)
    title = f"the loss of {name}, {len(counts)} x {len(anchors):,} anchors"
    return Case(
        title,
        runners,
        predictions["class_logits"].nbytes,
        loss=of_names(detloss_total),
        predictions=values,
    )


def predicted(
    criterion: detloss.DetectorLoss, shape: tuple[int, int, int], device: torch.device
) -> dict[str, Tensor]:
    """Predictions of an early training step; the shape is that of the logits, (B, A, C)."""
    images, anchors, classes = shape
    logits = normal(images, anchors, classes, device=device).mul_(2).sub_(4)
    deltas = normal(images, anchors, criterion.coder.width, device=device, seed=1).div_(4)
    found = {"class_logits": logits, "box_regression": deltas}
    if "centerness" in criterion.terms:
        found["centerness"] = normal(images, anchors, 1, device=device, seed=2)
        deltas.abs_()  # distances to the sides of a box, which the network makes positive
    return found


def torchvision_loss(detector: str, batch: Batch) -> Total | None:
    """``compute_loss`` of a detector of torchvision, or None where there is none."""
    detection = optional("torchvision.models.detection")
    if not detection:
        return None
    backbone = nn.Module()
    backbone.out_channels = 32  # type: ignore[assignment]
    compute_loss = getattr(detection, detector)(backbone, batch.classes).compute_loss

    def total(heads: Mapping[str, Tensor]) -> Tensor:
        theirs = {KEYS[name]: value for name, value in heads.items()}
        levels = [batch.level_sizes] if "centerness" in heads else []
        terms = compute_loss(batch.targets, theirs, [batch.anchors] * len(batch.targets), *levels)
        return torch.stack(list(terms.values())).sum()

    return total


def ultralytics_loss(batch: Batch) -> Total | None:
    """Ultralytics' loss of YOLOv8 with its default gains, or None where it is not installed.

    It takes the gains and the head from a model. Of the head's features it reads the shapes alone.
    """
    module = optional("ultralytics.utils.loss")
    if not module:
        return None
    device = batch.anchors.device
    head = SimpleNamespace(
        stride=torch.tensor(batch.strides, dtype=torch.float32, device=device),
        nc=batch.classes,
        reg_max=16,
    )
    model = SimpleNamespace(
        parameters=lambda: iter([torch.zeros(1, device=device)]),
        args=SimpleNamespace(box=7.5, cls=0.5, dfl=1.5),
        model=[head],
    )
    loss = module.v8DetectionLoss(model)
    images, size = len(batch.targets), (batch.side, batch.side)
    cells = cells_along(batch.side, batch.strides)
    features = [torch.empty(images, 1, along, along, device=device) for along in cells]
    counts = torch.tensor([len(target["labels"]) for target in batch.targets])
    boxes = torch.cat([target["boxes"] for target in batch.targets])
    objects_of = {
        "batch_idx": torch.arange(images).repeat_interleave(counts).float().to(device),
        "cls": torch.cat([target["labels"] for target in batch.targets]).float(),
        "bboxes": convert_boxes(boxes, "xyxy", "cxcywhn", image_size=size),
    }

    def total(heads: Mapping[str, Tensor]) -> Tensor:
        of_heads = {
            "boxes": heads["box_regression"].transpose(1, 2),
            "scores": heads["class_logits"].transpose(1, 2),
            "feats": features,
        }
        terms, _ = loss(of_heads, objects_of)
        summed: Tensor = terms.sum()
        return summed

    return total


PEERS: dict[str, tuple[str, Callable[[Batch], Total | None]]] = {
    "retinanet": ("torchvision", partial(torchvision_loss, "RetinaNet")),
    "fcos": ("torchvision", partial(torchvision_loss, "FCOS")),
    "yolov8": ("ultralytics", ultralytics_loss),
}
"""Shipped config -> the package with the same loss, and what makes it."""
