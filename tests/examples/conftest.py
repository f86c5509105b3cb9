"""The examples are programs, not a package: their folder goes on the path, as running one does.

The fixtures are small data sets, one a format, which a test damages where it needs to.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))


@pytest.fixture(autouse=True)
def _one_thread():
    """One thread, so that sums are added in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_image(path, width=64, height=48, orientation=None):
    """An image of stripes; with EXIF if `orientation` is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(width * height * 3, dtype=np.uint8).reshape(height, width, 3)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


class Voc:
    """A VOC folder: two images to train on, one to test, and one in no list."""

    def __init__(self, folder):
        self.folder = folder
        cat, dog = ("cat", (1, 2, 30, 40)), ("dog", (0, 0, 64, 48))
        self.add("a", self.object(*cat), self.object("dog", (5, 5, 20, 20), difficult="1"))
        self.add("b")
        self.add("c", self.object(*dog))
        self.add("unused", self.object(*dog))
        self.list("train", "a\nb\n")
        self.list("test", "c\n")

    @property
    def data(self):
        return f"voc:{self.folder}"

    def image(self, name, suffix=".jpg"):
        return self.folder / "JPEGImages" / f"{name}{suffix}"

    def annotation(self, name):
        return self.folder / "Annotations" / f"{name}.xml"

    def add(self, name, *objects, extra="", suffix=".jpg", orientation=None):
        write_image(self.image(name, suffix), orientation=orientation)
        self.annotation(name).parent.mkdir(exist_ok=True)
        self.annotation(name).write_text(f"<annotation>{extra}{''.join(objects)}</annotation>")

    def list(self, name, text):
        folder = self.folder / "ImageSets" / "Main"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.txt").write_text(text)

    @staticmethod
    def object(name, box, difficult="0"):
        sides = "".join(
            f"<{side}>{value}</{side}>"
            for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        return (
            f"<object><name>{name}</name><difficult>{difficult}</difficult>"
            f"<bndbox>{sides}</bndbox></object>"
        )


class Coco:
    """A COCO file of five images, of which the first is tested; `content` may be changed."""

    def __init__(self, folder):
        self.folder = folder
        self.images = folder / "images"
        self.file = folder / "boxes.json"
        self.content = {
            "images": [{"id": 10 + i, "file_name": f"{i}.png"} for i in range(5)],
            "annotations": [
                {"image_id": 11, "category_id": 7, "bbox": [1, 2, 10, 20], "iscrowd": 0},
                {"image_id": 11, "category_id": 3, "bbox": [0, 0, 50, 40], "iscrowd": 1},
                {"image_id": 10, "category_id": 3, "bbox": [4, 4, 5, 9]},
            ],
            "categories": [{"id": 7, "name": "seven"}, {"id": 3, "name": "three"}],
        }
        for image in self.content["images"]:
            write_image(self.images / image["file_name"])

    @property
    def data(self):
        """Writes the file, and says what ``--data`` is then."""
        self.file.write_text(json.dumps(self.content))
        return f"coco:{self.images}:{self.file}"


class Yolo:
    """A YOLO data set of two images to train on and one to test; `content` may be changed."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "data.yaml"
        self.content = {
            "path": ".",
            "train": "images/train",
            "val": "images/val",
            "names": {0: "cat", 1: "dog"},
        }
        self.add("train/a", "1 0.5 0.5 0.25 0.5\n0 0.25 0.25 0.5 0.5\n")
        self.add("train/b", "")
        self.add("val/c", "0 0.5 0.5 1 1\n")

    @property
    def data(self):
        """Writes the file, and says what ``--data`` is then."""
        self.file.write_text(yaml.safe_dump(self.content))
        return f"yolo:{self.file}"

    def image(self, name):
        return self.folder / "images" / f"{name}.jpg"

    def labels(self, name):
        return self.folder / "labels" / f"{name}.txt"

    def add(self, name, text=None, orientation=None):
        write_image(self.image(name), orientation=orientation)
        self.labels(name).parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            self.labels(name).write_text(text)


@pytest.fixture
def voc(tmp_path):
    return Voc(tmp_path / "voc")


@pytest.fixture
def coco(tmp_path):
    return Coco(tmp_path / "coco")


@pytest.fixture
def yolo(tmp_path):
    return Yolo(tmp_path / "yolo")
