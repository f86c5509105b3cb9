"""Data sets for the examples: scenes of handwritten digits, Pascal VOC folders, COCO files.

`load_data` turns the text of ``--data`` into a `DetectionData`. Every item of its two data sets is
an image (3, H, W) in [0, 1] and a target of "boxes" (M, 4) xyxy, "labels" (M,) from 0, and
"ignore" (M,) bool, true for the objects that count neither for nor against a detector.
"""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import methodcaller
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.functional import pil_to_tensor

from detloss.boxes import sanitize_targets

Array = npt.NDArray[np.float32]
Policy = Literal["drop", "clip", "error"]
Target = dict[str, Tensor]

VOC_SIDES = ("xmin", "ymin", "xmax", "ymax")
DATA_FORMS = "digits, voc:DIR or coco:IMAGES:ANNOTATIONS.json"


class ImageSet(Protocol):
    """Images with their targets, by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, Target]: ...


@dataclass(frozen=True)
class DetectionData:
    """A data set, and what a detector has to know about it.

    Attributes:
        classes: Name of each label.
        train: Images to train on.
        test: Images to evaluate on.
        anchor_sizes: Square roots of the anchors' areas, for each level from stride 8 up.
        aspect_ratios: Height over width of the anchors.
        flip: Whether a mirrored image is still a likely image; a mirrored digit is not.
        changes: What was wrong with the boxes and what was done about it, a line each.
    """

    classes: tuple[str, ...]
    train: ImageSet
    test: ImageSet
    anchor_sizes: tuple[tuple[float, ...], ...]
    aspect_ratios: tuple[float, ...]
    flip: bool
    changes: tuple[str, ...] = ()


def load_data(text: str, *, seed: int = 0, policy: Policy = "drop") -> DetectionData:
    """The data set that `text` names.

    Args:
        text: ``digits``, ``voc:DIR`` or ``coco:IMAGES:ANNOTATIONS.json``.
        seed: Which training scenes to draw; photos and test scenes do not depend on it.
        policy: What to do with a bad box: "drop", "clip" or "error", see `sanitize_targets`.

    Raises:
        ValueError: If `text` has another form, or a box is bad and `policy` is "error".
        FileNotFoundError: If a file of the data set is not there.
    """
    match text.split(":"):
        case ["digits"]:
            return digit_scenes(seed=seed)
        case ["voc", folder] if folder:
            return voc_photos(Path(folder), policy=policy)
        case ["coco", images, annotations] if images and annotations:
            return coco_photos(Path(images), Path(annotations), policy=policy)
    raise ValueError(f"data {text!r} is unknown; expected {DATA_FORMS}")


# --- Scenes of handwritten digits -----------------------------------------------------------------


def digit_scenes(*, seed: int, train: int = 4096, test: int = 256) -> DetectionData:
    """Scenes of scikit-learn's 1,797 digits; the last fifth of them appears in test scenes only."""
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)
    split = len(images) * 4 // 5
    return DetectionData(
        classes=tuple(str(name) for name in digits.target_names),
        train=DigitScenes(images[:split], digits.target[:split], count=train, seed=(0, seed)),
        test=DigitScenes(images[split:], digits.target[split:], count=test, seed=(1, 0)),
        anchor_sizes=((13.0, 18.0), (25.0, 35.0)),
        aspect_ratios=(1.4,),
        flip=False,
    )


class DigitScenes:
    """Scenes of one to six digits on a tinted, uneven background, composed when first asked for.

    Args:
        digits: Pool of digits (N, 8, 8) in [0, 1].
        labels: Their labels (N,).
        count: Number of scenes.
        seed: Together with its index, all that a scene depends on.
    """

    size = 128
    most_digits = 6
    heights = (18.0, 48.0)

    def __init__(
        self, digits: Array, labels: npt.NDArray[np.int64], *, count: int, seed: Sequence[int]
    ) -> None:
        self.digits = digits
        self.labels = labels
        self.count = count
        self.seed = tuple(seed)
        self._scene = lru_cache(maxsize=None)(self._compose)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        pixels, target = self._scene(index)
        return pixels.float() / 255, target

    def _compose(self, index: int) -> tuple[Tensor, Target]:
        """Pixels (3, H, W) uint8, few enough to be kept, and their target."""
        rng = np.random.default_rng((*self.seed, index))
        brightness = rng.uniform(0.2, 0.9)
        scene = background(rng, self.size, brightness)
        boxes: list[tuple[int, int, int, int]] = []
        labels: list[int] = []
        for _ in range(rng.integers(1, self.most_digits + 1)):
            chosen = rng.integers(len(self.digits))
            low, high = np.log(self.heights)
            shape = stamp(self.digits[chosen], height=np.exp(rng.uniform(low, high)))
            box = free_place(rng, shape.shape, boxes, self.size)
            if box is None:
                continue
            x1, y1, x2, y2 = box
            paint = ink(rng, brightness)
            scene[y1:y2, x1:x2] += shape[..., None] * (paint - scene[y1:y2, x1:x2])
            boxes.append(box)
            labels.append(int(self.labels[chosen]))
        pixels = (torch.from_numpy(scene).permute(2, 0, 1).clamp(0, 1) * 255).round().byte()
        return pixels.contiguous(), make_target(boxes, labels, [False] * len(boxes))


def background(rng: np.random.Generator, size: int, brightness: float) -> Array:
    """Uneven tint (size, size, 3): a few random colours blurred into each other, and grain."""
    light, tint = rng.normal(0, 0.06, (1, 1, 4, 4)), rng.normal(0, 0.03, (1, 3, 4, 4))
    patches = torch.from_numpy((brightness + light + tint).astype(np.float32))
    blurred = interpolate(patches, (size, size), mode="bicubic")
    grain = rng.normal(0, 0.015, (size, size, 1)).astype(np.float32)
    return blurred[0].permute(1, 2, 0).numpy() + grain


def ink(rng: np.random.Generator, brightness: float) -> Array:
    """Colour (3,) that stands out from a background: lighter on a dark one, darker on a light."""
    contrast = rng.uniform(0.3, 0.6) * (1 if brightness < 0.5 else -1)
    return (brightness + contrast + rng.normal(0, 0.1, 3)).clip(0, 1).astype(np.float32)


def stamp(digit: Array, *, height: float) -> Array:
    """Opacity (H, W) of a digit whose 8 rows span `height` pixels, cropped to what is visible."""
    padded = torch.from_numpy(np.pad(digit, 1))
    size = round(height * len(padded) / len(digit))
    smooth = interpolate(padded[None, None], (size, size), mode="bicubic")
    opacity: Array = ((smooth[0, 0] - 0.35) / 0.3).clamp(0, 1).numpy()
    rows = np.nonzero(opacity.max(axis=1) >= 0.5)[0]
    columns = np.nonzero(opacity.max(axis=0) >= 0.5)[0]
    return opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def free_place(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    taken: Iterable[tuple[int, int, int, int]],
    size: int,
    tries: int = 20,
) -> tuple[int, int, int, int] | None:
    """A random box of `shape` (height, width) that overlaps none of `taken`, or None."""
    height, width = shape
    for _ in range(tries):
        x1, y1 = int(rng.integers(size - width)), int(rng.integers(size - height))
        x2, y2 = x1 + width, y1 + height
        if all(x2 <= a1 or a2 <= x1 or y2 <= b1 or b2 <= y1 for a1, b1, a2, b2 in taken):
            return x1, y1, x2, y2
    return None


# --- Photos ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Photo:
    """An image file and its target, in the file's own pixels."""

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
        with Image.open(self.photos[index].path) as image:
            width, height = image.size
            factor = self.longest / max(width, height)
            size = max(round(width * factor), 1), max(round(height * factor), 1)
            pixels = pil_to_tensor(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))
        return pixels, torch.tensor([size[0] / width, size[1] / height]).repeat(2)


def voc_photos(folder: Path, *, policy: Policy) -> DetectionData:
    """A Pascal VOC folder: its train and test splits; ``difficult`` objects are ignored.

    The boxes of all annotations are checked, those of a split that is not used too. Coordinates are
    taken as written: today's tools do not count pixels from one, as the original challenge did.
    """
    splits = {
        name: existing(folder / "ImageSets" / "Main" / f"{name}.txt").read_text().split()
        for name in ("train", "test")
    }
    objects_of = {
        path.stem: list(ElementTree.parse(path).iter("object"))
        for path in sorted(existing(folder / "Annotations").glob("*.xml"))
    }
    name_of = methodcaller("findtext", "name", "")
    classes = tuple(sorted({name_of(entry) for found in objects_of.values() for entry in found}))
    changes: list[str] = []

    def photo(name: str) -> Photo:
        objects = objects_of[name]
        target = make_target(
            [
                [float(entry.findtext(f"bndbox/{side}", "nan")) for side in VOC_SIDES]
                for entry in objects
            ],
            [classes.index(name_of(entry)) for entry in objects],
            [entry.findtext("difficult") == "1" for entry in objects],
        )
        path = existing(folder / "JPEGImages" / f"{name}.jpg")
        return checked_photo(path, target, f"Annotations/{name}.xml", policy, changes)

    photos = {name: photo(name) for name in objects_of}
    for name in [*splits["train"], *splits["test"]]:
        existing(folder / "Annotations" / f"{name}.xml")
    train, test = ([photos[name] for name in names] for names in splits.values())
    return photo_data(classes, train, test, changes)


def coco_photos(images: Path, annotations: Path, *, policy: Policy) -> DetectionData:
    """A COCO file: by file name, every fifth image tests, the others train; crowds are ignored."""
    content = json.loads(existing(annotations).read_text())
    categories = sorted(content["categories"], key=lambda category: category["id"])
    label_of = {category["id"]: label for label, category in enumerate(categories)}
    entries_of: dict[int, list[dict[str, Any]]] = {entry["id"]: [] for entry in content["images"]}
    for entry in content["annotations"]:
        entries_of[entry["image_id"]].append(entry)
    changes: list[str] = []

    def photo(image: dict[str, Any]) -> Photo:
        entries = entries_of[image["id"]]
        target = make_target(
            [(x, y, x + w, y + h) for x, y, w, h in (entry["bbox"] for entry in entries)],
            [label_of[entry["category_id"]] for entry in entries],
            [bool(entry.get("iscrowd", 0)) for entry in entries],
        )
        path = existing(images / image["file_name"])
        return checked_photo(path, target, image["file_name"], policy, changes)

    photos = [photo(image) for image in sorted(content["images"], key=lambda i: i["file_name"])]
    test = photos[::5]
    train = [photo for place, photo in enumerate(photos) if place % 5]
    return photo_data(tuple(category["name"] for category in categories), train, test, changes)


def photo_data(
    classes: tuple[str, ...], train: list[Photo], test: list[Photo], changes: list[str]
) -> DetectionData:
    """What photos have in common: any shape of object, and a mirror image is as likely."""
    return DetectionData(
        classes=classes,
        train=Photos(train),
        test=Photos(test),
        anchor_sizes=((16.0, 23.0), (32.0, 45.0), (64.0, 91.0)),
        aspect_ratios=(0.5, 1.0, 2.0),
        flip=True,
        changes=tuple(changes),
    )


def checked_photo(
    path: Path, target: Target, source: str, policy: Policy, changes: list[str]
) -> Photo:
    """The photo with its boxes sanitized; `changes` grows by a line for each bad box.

    Raises:
        ValueError: If a box is bad and `policy` is "error"; it names `source`, the file to mend.
    """
    with Image.open(path) as image:
        width, height = image.size
    try:
        (clean,), records = sanitize_targets([target], (height, width), policy=policy)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    for record in records:
        box = ", ".join(f"{value:g}" for value in record.box)
        changes.append(f"{source}: box {record.index} ({box}) {record.action}: {record.reason}")
    return Photo(path, clean)


def existing(path: Path) -> Path:
    """`path`, if it is there.

    Raises:
        FileNotFoundError: If it is not, by its full name.
    """
    if not path.exists():
        raise FileNotFoundError(f"data set: no {path.absolute()}")
    return path


def make_target(
    boxes: Sequence[Sequence[float]], labels: Sequence[int], ignore: Sequence[bool]
) -> Target:
    """The target of one image; it may hold no box."""
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "ignore": torch.tensor(ignore, dtype=torch.bool),
    }
