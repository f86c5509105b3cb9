"""Data sets for the examples: scenes of handwritten digits, and photos in three formats.

`load_data` turns the text of ``--data`` into a `DetectionData`. Every item of its two data sets is
an image (3, H, W) in [0, 1] and a target of "boxes" (M, 4) xyxy, "labels" (M,) from 0, and
"ignore" (M,) bool, true for the objects that count neither for nor against a detector.

What a format means stands in its module, `voc`, `coco` or `yolo`; what is the same for all photos,
in `photos`.
"""

import os
from pathlib import Path

from coco import read_coco, split_places
from digits import digit_scenes
from image_sets import DetectionData
from photos import Policy, load_photos
from voc import read_voc
from yolo import read_yolo

DATA_FORMS = "digits, voc:DIR, coco:IMAGES:ANNOTATIONS.json or yolo:DATA.yaml"


def load_data(text: str, *, seed: int = 0, policy: Policy = "drop") -> DetectionData:
    """The data set that `text` names.

    Args:
        text: ``digits``, ``voc:DIR``, ``coco:IMAGES:ANNOTATIONS.json`` or ``yolo:DATA.yaml``.
        seed: Which training scenes to draw; photos and test scenes do not depend on it.
        policy: What to do with a bad box: "drop", "clip" or "error", see `sanitize_targets`.

    Raises:
        DataError: If a file is missing or damaged, an entry cannot be understood, there is nothing
            to learn, or a box is bad and `policy` is "error"; it names the file and the entry.
        ValueError: If `text` has another form.
    """
    form, _, place = text.partition(":")
    path = Path(os.path.expanduser(place))  # which a shell does not do behind a colon
    if text == "digits":
        return digit_scenes(seed=seed)
    if form == "voc" and place:
        return load_photos(read_voc(path), policy=policy)
    if form == "coco" and ":" in place.strip(":"):
        return load_photos(read_coco(*split_places(place)), policy=policy)
    if form == "yolo" and place:
        return load_photos(read_yolo(path), policy=policy)
    raise ValueError(f"data {text!r} is unknown; expected {DATA_FORMS}")
