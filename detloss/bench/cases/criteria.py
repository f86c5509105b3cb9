"""Cases of a whole training loss: match, encode, every term, backward."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

import detloss
from detloss.bench.cases.matching import anchors_of, objects
from detloss.bench.cases.runners import forward_backward, normal, optional
from detloss.bench.measure import Case

PEERS = {"retinanet": "RetinaNet", "fcos": "FCOS"}
"""Shipped config -> the detector of torchvision with the same loss."""
KEYS = {
    "class_logits": "cls_logits",
    "box_regression": "bbox_regression",
    "centerness": "bbox_ctrness",
}
"""Our names of predictions -> torchvision's."""


def criterion(
    device: torch.device,
    scale: float,
    *,
    name: str = "retinanet",
    counts: Sequence[int] = (7, 20),
    side: int = 640,
    classes: int = 80,
) -> Case:
    """The loss of a shipped config on a batch whose images have that many objects."""
    side = side if scale == 1 else 128
    anchors, level_sizes = anchors_of(side, device, nine=name.startswith("retinanet"))
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

    def detloss_total(*values: Tensor) -> Tensor:
        heads = dict(zip(names, values, strict=True))
        total: Tensor = ours(heads, targets, anchors=anchors, level_sizes=level_sizes).total
        return total

    runners = {"detloss": forward_backward(detloss_total, *values)}
    if name in PEERS and (theirs := torchvision_loss(PEERS[name], classes)):

        def torchvision_total(*values: Tensor) -> Tensor:
            heads = {KEYS[name]: value for name, value in zip(names, values, strict=True)}
            levels = [level_sizes] if "centerness" in names else []
            terms = theirs(targets, heads, [anchors] * len(targets), *levels)
            return torch.stack(list(terms.values())).sum()

        runners["torchvision"] = forward_backward(torchvision_total, *values)
    title = f"the loss of {name}, {len(counts)} x {len(anchors):,} anchors"
    return Case(
        title,
        runners,
        predictions["class_logits"].nbytes,
        loss=detloss_total,
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


def torchvision_loss(detector: str, classes: int) -> Any:
    """``compute_loss`` of a detector of torchvision, or None where there is none."""
    detection = optional("torchvision.models.detection")
    if not detection:
        return None
    backbone = nn.Module()
    backbone.out_channels = 32  # type: ignore[assignment]
    return getattr(detection, detector)(backbone, classes).compute_loss
