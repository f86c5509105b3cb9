"""What is measured: the losses at the sizes of known detectors, matching, and a whole step."""

from collections.abc import Callable
from functools import partial

import torch

from detloss.bench.cases.assignment import assignment
from detloss.bench.cases.boxes import boxes
from detloss.bench.cases.classification import (
    DETR,
    LOSSES,
    RETINANET,
    WITH_QUALITY,
    YOLO,
    focal,
    indices,
    one_hot_given,
    with_quality,
)
from detloss.bench.cases.criteria import criterion
from detloss.bench.cases.matching import matching
from detloss.bench.measure import Case

__all__ = [
    "COUNTED",
    "TIMED",
    "Build",
    "assignment",
    "boxes",
    "criterion",
    "focal",
    "indices",
    "matching",
]

Build = Callable[[torch.device, float], Case]
"""Makes a case on a device, its rows scaled by a factor."""

CASES: dict[str, Build] = {
    "focal": partial(focal, size=RETINANET),
    "focal-bf16": partial(focal, size=RETINANET, dtype=torch.bfloat16),
    "focal-yolo": partial(focal, size=YOLO),
    "focal-detr": partial(focal, size=DETR),
    "focal-1000": partial(focal, size=(1000, 80)),
    "focal-100": partial(focal, size=(100, 80)),
    "focal-one-hot": partial(one_hot_given, name="sigmoid_focal"),
    **{f"indices-{name}": partial(indices, name=name) for name in LOSSES},
    "cross-entropy-one-hot": partial(one_hot_given, name="sigmoid_cross_entropy"),
    **{f"quality-{name}": partial(with_quality, name=name) for name in WITH_QUALITY},
    **{
        f"{kind}-{count}": partial(boxes, kind=kind, count=count)
        for kind in ("giou", "diou", "ciou")
        for count in (1_000, 100_000)
    },
    "match-10": partial(matching, counts=(10,)),
    "match-100": partial(matching, counts=(100,)),
    "match-500": partial(matching, counts=(500,)),
    "match-batch": partial(matching, counts=(5, 20, 50, 100), side=640),
    "match-fcos": partial(matching, counts=(7, 20), name="fcos"),
    "match-atss": partial(matching, counts=(7, 20), name="atss"),
    "match-atss-100": partial(matching, counts=(100,), name="atss"),
    **{
        f"assign-task-aligned-{count}": partial(
            assignment, name="task_aligned", images=16, count=count
        )
        for count in (10, 40, 100)
    },
    "assign-sim-ota": partial(assignment, name="sim_ota", images=1, count=100),
    "assign-soft-label": partial(assignment, name="dynamic_soft_label", images=1, count=100),
    "criterion": criterion,
    "criterion-giou": partial(criterion, name="retinanet_giou"),
    "criterion-fcos": partial(criterion, name="fcos"),
    "criterion-gfl": partial(criterion, name="gfl"),
    "criterion-yolov8": partial(criterion, name="yolov8", counts=(7, 20) * 8, levels=3),
}

TIMED: dict[str, Build] = CASES | {
    "focal-compiled": partial(focal, size=RETINANET, compiled=True),
}
COUNTED: dict[str, Build] = CASES | {
    f"{kind}-of-{images}": partial(build, counts=(7,) * images)
    for images in (1, 2, 8, 16)
    for kind, build in (("match", partial(matching, side=640)), ("criterion", criterion))
}
"""For launches: does a batch of more images cost more of them?"""
