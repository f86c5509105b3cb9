"""How well a detector does on test images: COCO's average precision."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from image_sets import ImageSet, Target
from torch import nn
from torchmetrics.detection import MeanAveragePrecision


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        metrics: AP, AP50, AP75 and what they cost, as metrics.json has them.
        precision: AP at each of `thresholds`.
        thresholds: IoU that counts as found.
        detections: Of each test image "boxes", "labels" and "scores".
    """

    metrics: dict[str, Any]
    precision: list[float]
    thresholds: list[float]
    detections: Sequence[Target]


@torch.no_grad()
def detect(model: nn.Module, images: ImageSet, batch_size: int, device: str) -> list[Target]:
    """What the model finds in each image: "boxes", "labels" and "scores"."""
    model.eval()
    found: list[Target] = []
    for first in range(0, len(images), batch_size):
        last = min(first + batch_size, len(images))
        inputs = [images[index][0].to(device) for index in range(first, last)]
        found += [{key: value.cpu() for key, value in one.items()} for one in model(inputs)]
    return found


def evaluate(detections: Sequence[Target], images: ImageSet) -> Result:
    """COCO's average precision; objects to ignore count neither for nor against."""
    metric = MeanAveragePrecision(
        backend="faster_coco_eval",
        extended_summary=True,
        sync_on_compute=False,  # one process has all detections
    )
    targets = [images[index][1] for index in range(len(images))]
    metric.update(
        list(detections),
        [
            {"boxes": t["boxes"], "labels": t["labels"], "iscrowd": t["ignore"].int()}
            for t in targets
        ],
    )
    computed = metric.compute()
    # (threshold, recall, class, all areas, most detections); -1 where a class has no object
    precision = computed["precision"][..., 0, -1]
    known = precision[0, 0] >= 0
    return Result(
        metrics={
            "AP": round(float(computed["map"]), 4),
            "AP50": round(float(computed["map_50"]), 4),
            "AP75": round(float(computed["map_75"]), 4),
        },
        precision=precision[..., known].mean(dim=(1, 2)).tolist(),
        thresholds=list(metric.iou_thresholds),
        detections=detections,
    )
