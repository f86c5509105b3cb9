"""docs/detectors.md, from the golden files: `python -m tests.parity.page`."""

import re
from pathlib import Path
from typing import Any

import detloss

from .compare import CONFIGS, compare
from .golden import Golden
from .originals import ORIGINALS, Original
from .report import DEFAULT

PAGE = Path(__file__).parents[2] / "docs" / "detectors.md"
HEAD = """# Detectors

Each config in [configs](../configs) is the loss of one detector, with the numbers of one
implementation. `python -m tests.parity` feeds a config what that implementation was fed, and
compares every term, the total, the gradient of each prediction and every anchor's match. This page
comes from `python -m tests.parity.page`. A difference is relative to the largest absolute value of
what the original returned; it is the largest of all terms and gradients.

| detector | config | source | largest difference | convention | what differs from the paper |
|---|---|---|---|---|---|
"""
TAIL = """
Where the matcher is given the original's matches, the row says so. Some implementations leave
matches to the order in which a sort finds equal values (YOLOv8's assigner takes anchors with
alignment 0 where an object has fewer aligned ones than topk); here these anchors are never taken.
Where that changes a match, the command checks of each anchor that it is such a one, counts them,
gives the reason and compares the losses with the original's matches.

Ultralytics adds 1e-7 to heights and areas of boxes in units of their stride, and detloss does not.
For an object of 4 pixels that is matched at stride 32 its CIoU is off by some 1e-5; in 2,500 random
scenes of yolo11_l1 and yolo26 the difference stayed below 1e-5.

## Not there

- CornerNet: pairs of corners with embeddings; a matcher of corners and a pull and push loss would
  be needed.
- Oriented boxes: boxes here have four numbers.
- DETR and its successors: a Hungarian matcher, and denoising groups.
"""
PAPER = {
    "retinanet": "L1 for smooth L1; each image divided by its own positives",
    "retinanet_giou": "GIoU for smooth L1; each image divided by its own positives",
    "retinanet_mmdet": "L1 for smooth L1; at least 1 positive counted for each image",
    "retinanet_mmdet_giou": "GIoU for smooth L1; at least 1 positive counted for each image",
    "fcos": "centre sampling, GIoU for IoU, points at the corners of cells",
    "fcos_mmdet": "boxes weighted by centerness and divided by its sum",
    "fcos_mmdet_center": "centre sampling, GIoU; boxes weighted by centerness",
    "atss": "boxes weighted by centerness; at least 1 positive counted for each image",
    "fsaf": "an object's class ignored in its middle alone, of 0.2 times its sides for 0.5",
    "gfl": "boxes weighted by the largest class probability and divided by its sum",
    "ssd": "the last of several objects keeps an anchor that is the best of all of them",
    "ssd_mmdet": "as ssd; at least 1 positive counted for each image",
    "rpn": "both terms divided by the sampled anchors, without the paper's factor 10",
    "yolov8": "no paper; objects below 16 pixels are matched as if they were as large",
    "yolo11_l1": "no paper; as yolov8, with L1 in units of the image for distributions",
    "yolo26": "no paper; as yolov10_e2e, with L1 in units of the image for distributions",
    "yolov10": "objects below 16 pixels are matched as if they were as large",
    "yolov10_e2e": "as yolov10; the heads' weights change while training, 7 candidates for one",
    "yolov9": "the loss is not in the paper",
    "yolov9_dual": "the loss is not in the paper",
    "yolov3": "several anchors for an object; cross-entropy of the centre for a squared error",
    "yolov5": "no paper; without the factors of its train.py for levels, classes and image side",
    "yolov5_focal": "no paper; as yolov5, with focal loss and label smoothing",
    "yolov6": "the label of a positive is TOOD's; varifocal loss on probabilities",
    "yolov6n": "as yolov6s, with SIoU for GIoU",
    "yolov6s": "as yolov6, without distributions",
    "yolov6_atss": "not in the paper",
    "ppyoloe": "varifocal loss with its gradient through p^gamma",
    "ppyoloe_focal": "as ppyoloe, with quality focal loss",
    "yolox": "a centre region of 1.5 strides for 2.5, without the test inside the box",
    "yolox_l1": "as yolox, with L1 of the codes",
    "yolox_mmdet": "candidates also inside the box",
    "yolox_mmdet_l1": "as yolox_mmdet, with L1 of the codes",
    "foveabox": "classes over the positives plus the number of images",
    "paa": "nothing known",
    "centernet": "offset and size divided by their two coordinates",
    "vfnet": "boxes divided by the sum of their IoUs, for the positives",
    "rtmdet": "nothing known",
    "yolof": "nothing known",
    "nanodet_plus": "no paper; no cost of the centre's distance",
    "nanodet_plus_aux": "as nanodet_plus; the auxiliary head's matches for both",
    "tood": "nothing known",
    "tood_initial": "boxes weighted by centerness",
    "efficientdet": "Huber for smooth L1, times 50; divided by the positives plus 1",
}
"""Config -> what its implementation does otherwise than its paper."""


def page() -> str:
    """The page."""
    rows = {}
    for file in sorted(DEFAULT.rglob("*.npz")):
        golden = Golden.read(file)
        rows.setdefault((golden.project, golden.name), []).append(golden)
    return HEAD + "".join(_row(found) for _, found in sorted(rows.items())) + TAIL


def without_figures(text: str) -> str:
    """The page but for its measured differences, which machines round in different ways."""
    return re.sub(r"\d\.\de[-+]\d\d", "...", text)


def _row(files: list[Golden]) -> str:
    """The row of one original, over all its files."""
    original = ORIGINALS[files[0].project, files[0].name]
    found = [compare(golden, original) for golden in files]
    worst = max(f for one in found for f in [*one.terms.values(), *one.gradients.values()])
    given = ", matches given" if original.given else ""
    source = re.sub(r"(@ \w{7})\w+", r"\1", files[0].source.split(" (")[0].split(" models")[0])
    cells = [
        files[0].name.removeprefix("tv_"),
        f"[{original.config}](../configs/{original.config}.yaml)",
        source,
        f"{worst:.1e}{given}",
        ", ".join(conventions(original)),
        PAPER[original.config],
    ]
    return f"| {' | '.join(cells)} |\n"


def conventions(original: Original) -> list[str]:
    """Every `convention` of the config, and what is set for this original alone."""
    config = detloss.load_config(CONFIGS / f"{original.config}.yaml").config()
    named = dict.fromkeys(_conventions_in(config))
    return [*named, *(f"{path}: {value}" for path, value in original.convention.items())]


def _conventions_in(config: Any) -> list[str]:
    found = []
    for value in config.values() if isinstance(config, dict) else config:
        if isinstance(value, dict | list):
            found += _conventions_in(value)
    if isinstance(config, dict) and "convention" in config:
        found.append(f"{config['type']}: {config['convention']}")
    return found


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"{PAGE}: {len(ORIGINALS)} originals")
