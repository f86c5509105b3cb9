"""Photos with boxes: what the readers of all formats hand on, and how it becomes a data set.

A reader (`voc`, `coco`, `yolo`) parses its files into `Annotations`. `load_photos` does what is the
same for all: it reads each image, brings the boxes into the pixels that are shown, cleans them, and
checks that there is something to learn.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from data_files import DataError, counted, note
from image_files import Box, Frame, Size, read_frame, read_upright
from image_sets import DetectionData, Target, make_target
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from detloss.boxes import sanitize_targets

Policy = Literal["drop", "clip", "error"]
"""What to do with a bad box, see `sanitize_targets`."""


@dataclass(frozen=True)
class LabelledBox:
    """An object of an image.

    Attributes:
        entry: Where in the annotation it stands, for messages.
        box: (x1, y1, x2, y2).
        label: Its class.
        ignore: Whether it counts neither for nor against a detector.
    """

    entry: str
    box: Box
    label: int
    ignore: bool = False


@dataclass(frozen=True)
class AnnotatedImage:
    """An image file and what an annotation says about it.

    Attributes:
        path: The image file.
        source: The annotation file.
        objects: The objects in it.
        entry: The image's own entry in `source`, if there is one.
        size: (width, height) that the annotation states, if it does.
        fractions: Whether the boxes are fractions of the image that is shown, and not pixels.
    """

    path: Path
    source: Path
    objects: tuple[LabelledBox, ...] = ()
    entry: str | None = None
    size: Size | None = None
    fractions: bool = False


@dataclass(frozen=True)
class Annotations:
    """All that the files of a data set say.

    Attributes:
        source: The file or folder that says what is trained on and what is tested.
        classes: Name of each label.
        images: Every annotated image, also those that are neither trained on nor tested.
        train: Paths of the images to train on.
        test: Paths of the images to evaluate on.
        notes: What the reader chose or left out, a line each.
    """

    source: Path
    classes: tuple[str, ...]
    images: Sequence[AnnotatedImage]
    train: Sequence[Path]
    test: Sequence[Path]
    notes: Sequence[str] = ()


@dataclass
class Findings:
    """What a user should hear about a data set that can be read.

    Attributes:
        notes: See `DetectionData`.
        changes: See `DetectionData`.
        over_edge: Boxes that are kept as they are though they reach over the edge.
    """

    notes: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    over_edge: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Photo:
    """An image file and its target, in pixels of the image as it is shown."""

    path: Path
    target: Target


class Photos:
    """Photos scaled so that they fit into `longest` pixels a side, the boxes with them."""

    longest = 320

    def __init__(self, photos: Sequence[Photo]) -> None:
        self.photos = photos
        self._read = lru_cache(maxsize=1024)(self._decode)

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        pixels, scale = self._read(index)
        target = self.photos[index].target
        return pixels.float() / 255, target | {"boxes": target["boxes"] * scale}

    def _decode(self, index: int) -> tuple[Tensor, Tensor]:
        """Pixels (3, H, W) uint8, few enough to be kept, and the factor (4,) of the boxes."""
        image = read_upright(self.photos[index].path)
        width, height = image.size
        factor = self.longest / max(width, height)
        size = max(round(width * factor), 1), max(round(height * factor), 1)
        pixels = pil_to_tensor(image.resize(size, Image.Resampling.BILINEAR))
        return pixels, torch.tensor([size[0] / width, size[1] / height]).repeat(2)


def load_photos(annotations: Annotations, *, policy: Policy) -> DetectionData:
    """The data set of `annotations`: any shape of object, and a mirror image is as likely.

    Every image is read once, so that a damaged one is found before the training and not in it.

    Raises:
        DataError: If an image cannot be read or does not fit its annotation, if there is nothing to
            learn, or if a box is bad and `policy` is "error".
    """
    findings = Findings(list(annotations.notes))
    train, test = chosen(annotations, findings)
    targets = {image.path: clean_target(image, policy, findings) for image in annotations.images}
    note_over_edge(annotations.source, findings)
    check_objects(annotations.source, train, test, targets, findings)
    return DetectionData(
        classes=annotations.classes,
        train=Photos([Photo(path, targets[path]) for path in train]),
        test=Photos([Photo(path, targets[path]) for path in test]),
        anchor_sizes=((16.0, 23.0), (32.0, 45.0), (64.0, 91.0)),
        aspect_ratios=(0.5, 1.0, 2.0),
        flip=True,
        notes=tuple(findings.notes),
        changes=tuple(findings.changes),
    )


def every_fifth(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Images to train on and images to test, where a data set does not say which is which."""
    return [path for place, path in enumerate(paths) if place % 5], list(paths[::5])


# --- Images ---------------------------------------------------------------------------------------


def chosen(annotations: Annotations, findings: Findings) -> tuple[list[Path], list[Path]]:
    """The images to train on and those to test, each once.

    Raises:
        DataError: If there is none of either.
    """
    source = annotations.source
    train, test = list(dict.fromkeys(annotations.train)), list(dict.fromkeys(annotations.test))
    repeats = len(annotations.train) + len(annotations.test) - len(train) - len(test)
    if repeats:
        entries = counted(repeats, "repeated entry", "repeated entries")
        findings.notes.append(f"{source}: {entries} left out")
    if not train or not test:
        images = counted(len({*train, *test}), "image", "images")
        problem = f"{images}, expected at least 2: one to train on and one to test"
        if len({*train, *test}) > 1:
            problem = f"no image to {'test' if train else 'train on'}, expected at least one"
        raise DataError(source, None, problem)
    tested = set(map(os.path.realpath, test))
    findings.notes += note(
        source,
        [path for path in train if os.path.realpath(path) in tested],
        "image is both trained on and tested",
        "images are both trained on and tested",
    )
    return train, test


def check_objects(
    source: Path,
    train: Iterable[Path],
    test: Iterable[Path],
    targets: Mapping[Path, Target],
    findings: Findings,
) -> None:
    """Refuses to train without an object, and notes that nothing can be measured without one.

    Raises:
        DataError: If no image to train on has an object that counts; with the first finding, which
            may be the reason.
    """
    if all(targets[path]["ignore"].all() for path in train):
        problem = "no object in the images to train on, expected at least one that counts"
        reasons = findings.changes + findings.notes
        raise DataError(source, None, "; ".join([problem, *reasons[:1]]))
    if all(targets[path]["ignore"].all() for path in test):
        findings.notes.append(f"{source}: no object in the images to test: AP will be -1, unknown")


# --- Boxes ----------------------------------------------------------------------------------------


def clean_target(image: AnnotatedImage, policy: Policy, findings: Findings) -> Target:
    """The target of an image in the pixels that are shown; each box changed is a finding.

    Raises:
        DataError: If the file does not fit the annotation, or a box is bad and `policy` "error".
    """
    frame = read_frame(image.path)
    if not image.fractions:
        check_size(image, frame)
        check_unit(image, findings)
    target = make_target(
        [shown_box(one.box, image, frame) for one in image.objects],
        [one.label for one in image.objects],
        [one.ignore for one in image.objects],
    )
    repair: Policy = "drop" if policy == "error" else policy
    (clean,), records = sanitize_targets([target], frame.shown[::-1], policy=repair)
    for record in records:
        entry = image.objects[record.index].entry
        box = written(record.box)
        if policy == "error":
            problem = f"{box}: {record.reason}, expected an area inside the image"
            raise DataError(image.source, entry, problem)
        findings.changes.append(f"{image.source}: {entry}: {box} {record.action}: {record.reason}")
    changed = {record.index for record in records}
    findings.over_edge += [
        f"{image.objects[index].entry} of {image.source.name}"
        for index, box in enumerate(target["boxes"].tolist())
        if index not in changed and reaches_over(box, frame.shown)
    ]
    return clean


def check_size(image: AnnotatedImage, frame: Frame) -> None:
    """Refuses an image whose annotation is about one of another size.

    Raises:
        DataError: If the size stated is neither that of the file nor that of what is shown.
    """
    if image.size not in (None, frame.shown, frame.stored):
        stated, actual = (f"{width} x {height}" for width, height in (image.size, frame.shown))
        problem = f"{stated} pixels, expected the {actual} of {image.path.name}"
        raise DataError(image.source, image.entry, problem)


def check_unit(image: AnnotatedImage, findings: Findings) -> None:
    """Refuses boxes that are fractions of the image where pixels are expected.

    A box with all of its coordinates in [0, 1] is smaller than the first pixel. If an image has no
    other boxes they are fractions; beside others one may be a sliver of an object at the corner.
    Sums of fractions and tools round over the edge.

    Raises:
        DataError: If all boxes of the image are fractions.
    """
    tiny = [
        one
        for one in image.objects
        if all(-0.01 <= side <= 1.01 for side in one.box)
        and not all(side.is_integer() for side in one.box)
    ]
    if tiny and len(tiny) == len(image.objects):
        problem = f"{written(tiny[0].box)}: fractions of the image, expected pixels"
        raise DataError(image.source, tiny[0].entry, problem)
    for one in tiny:
        problem = f"{written(one.box)} kept: within the first pixel; a fraction of the image?"
        findings.changes.append(f"{image.source}: {one.entry}: {problem}")


def reaches_over(box: Sequence[float], size: Size) -> bool:
    """Whether a box reaches over the edge of its image, by more than a tool rounds."""
    (x1, y1, x2, y2), (width, height) = box, size
    return min(x1, y1) < -1 or x2 > width + 1 or y2 > height + 1


def note_over_edge(source: Path, findings: Findings) -> None:
    """Tells of boxes over the edge, which are usual in some data sets; in others a mistake."""
    over = findings.over_edge
    if over:
        boxes = counted(len(over), "box reaches", "boxes reach")
        reason = "as boxes of another format do; --policy clip cuts there"
        findings.notes.append(f"{source}: {boxes} over the edge (first {over[0]}), {reason}")


def shown_box(box: Box, image: AnnotatedImage, frame: Frame) -> Box:
    """A box of the annotation in pixels of the image as it is shown.

    Boxes are taken to be about what is shown, as browsers show it. A tool that does not know EXIF
    gives itself away by the size that it states, where that of the file is another.
    """
    if image.fractions:
        (x1, y1, x2, y2), (width, height) = box, frame.shown
        return x1 * width, y1 * height, x2 * width, y2 * height
    return frame.show(box) if image.size == frame.stored != frame.shown else box


def written(box: Sequence[float]) -> str:
    """A box in a message."""
    return f"box ({', '.join(f'{side:g}' for side in box)})"
