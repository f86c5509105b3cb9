"""YOLO: a YAML file with ``path``, ``train``, ``val`` and ``names``, and a text beside each image.

- The boxes of ``.../images/a.jpg`` are in ``.../labels/a.txt``, a line ``class cx cy w h`` each,
  in fractions of the image. An empty text or none is an image without objects.
- ``train`` and ``val`` are folders, lists of images in a text, or several of them.
- ``val`` is tested, or else ``test``; without both every fifth image of ``train`` is.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from data_files import (
    IMAGE_SUFFIXES,
    DataError,
    as_number,
    as_whole,
    find_file,
    listed,
    named,
    note,
    one_of,
    quoted,
    read_lines,
    read_text,
)
from photos import AnnotatedImage, Annotations, LabelledBox, every_fifth

FIELDS = 5
LARGEST = 1.01
"""What a coordinate may be: tools round over the edge. Pixels are larger."""
MOST_CLASSES = 100_000


class TextLoader(yaml.SafeLoader):
    """Reads all values but null as text, so that a class may be called "no"."""


TextLoader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yolo(file: Path) -> Annotations:
    """What a YOLO data set's YAML file and label texts say.

    Raises:
        DataError: If a file is missing or damaged, or an entry cannot be understood.
    """
    content = read_yaml(file)
    classes = class_names(content, file)
    root = root_folder(content, file)
    train = images_at(content, "train", root, file)
    if not train:
        raise DataError(file, "train", "no image, expected a folder or a list of images")
    tested = next((name for name in ("val", "test") if content.get(name)), None)
    notes = []
    if tested:
        test = images_at(content, tested, root, file)
    else:
        train, test = every_fifth(train)
        notes += [f"{file}: neither val nor test: every fifth image of train is tested"]

    paths = list(dict.fromkeys([*train, *test]))
    label_of = label_paths(paths)
    notes += note(
        file,
        [path for path in paths if not os.path.lexists(label_of[path])],
        "image without a label file is read as one without objects",
        "images without a label file are read as ones without objects",
    )
    notes += note(
        file,
        orphans(label_of),
        "label file without an image is left out",
        "label files without an image are left out",
    )
    images = [read_image(path, label, len(classes)) for path, label in label_of.items()]
    return Annotations(file, classes, images, train, test, notes)


# --- The YAML file --------------------------------------------------------------------------------


def read_yaml(file: Path) -> Mapping[str, Any]:
    """The content of a YAML file.

    Raises:
        DataError: If it is no YAML, or no mapping.
    """
    text = read_text(file)
    try:
        content = yaml.load(text, Loader=TextLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}" if mark else None
        raise DataError(file, place, f"{error.problem}, expected YAML") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError(file, None, f"{str(error).splitlines()[0]}, expected YAML") from None
    if not isinstance(content, dict):
        problem = f"{quoted(content)}, expected a mapping with path, train, val and names"
        raise DataError(file, None, problem)
    return content


def class_names(content: Mapping[str, Any], file: Path) -> tuple[str, ...]:
    """The name of each class: a list, a mapping from 0, or only their number as ``nc``.

    Raises:
        DataError: If there is none, or the two do not fit.
    """
    count = as_whole(content["nc"], file, "nc") if content.get("nc") else None
    if count is not None and not 1 <= count <= MOST_CLASSES:
        raise DataError(file, "nc", f"{count}, expected from 1 to {MOST_CLASSES}")
    names = content.get("names") or ([str(label) for label in range(count)] if count else None)
    if isinstance(names, dict):
        by_label = {as_whole(label, file, "names"): name for label, name in names.items()}
        if sorted(by_label) != list(range(len(names))):
            problem = f"classes {sorted(by_label)}, expected each from 0 to {len(names) - 1}"
            raise DataError(file, "names", problem)
        names = [by_label[label] for label in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        problem = f"{quoted(names)}, expected a list of names, or a mapping from 0 on"
        raise DataError(file, "names", problem)
    (name, times), *_ = Counter(names).most_common(1)
    if times > 1:
        raise DataError(file, "names", f"{times} classes are {quoted(name)}, expected one")
    if count is not None and count != len(names):
        raise DataError(file, "nc", f"{count}, expected the {len(names)} of names")
    return tuple(names)


def root_folder(content: Mapping[str, Any], file: Path) -> Path:
    """The folder that the others are in: ``path``, or else that of the YAML file.

    Raises:
        DataError: If it is not there.
    """
    text = content.get("path") or "."
    if not isinstance(text, str):
        raise DataError(file, "path", f"{quoted(text)}, expected a folder")
    for base in (file.parent, Path()):
        if os.path.isdir(folder := named(base, os.path.expanduser(text))):
            return folder
    raise DataError(file, "path", f"{text!r} is not there, expected a folder")


def images_at(content: Mapping[str, Any], name: str, root: Path, file: Path) -> list[Path]:
    """The images of "train", "val" or "test": of a folder, of a list, or of several.

    Raises:
        DataError: If a place or an image is not there.
    """
    places = content.get(name) or []
    images: list[Path] = []
    for text in [places] if isinstance(places, str) else places:
        # "../train/images" is meant from the YAML file by some tools, and from one below by others
        choices = [text, text.removeprefix("../")] if isinstance(text, str) else []
        found = [path for choice in choices if os.path.exists(path := named(root, choice))]
        if not found:
            problem = f"{quoted(text)} is not in {root}, expected a folder or a list of images"
            raise DataError(file, name, problem)
        images += images_of(found[0], root)
    return images


def images_of(place: Path, root: Path) -> list[Path]:
    """The images of a folder or a list, or the one image."""
    if place.is_dir():
        return listed(place, IMAGE_SUFFIXES)
    return [place] if place.suffix.lower() in IMAGE_SUFFIXES else read_list(place, root)


def read_list(path: Path, root: Path) -> list[Path]:
    """The images that a text names, a line each, from its own folder or from that of the data set.

    Raises:
        DataError: If one is not there.
    """
    images = []
    for entry, line in read_lines(path):
        image = find_file([path.parent, root], line)
        if image is None:
            raise DataError(path, entry, f"{quoted(line)} is not there, expected an image")
        images.append(image)
    return images


# --- Labels ---------------------------------------------------------------------------------------


def label_paths(images: Iterable[Path]) -> dict[Path, Path]:
    """Image -> the text of its boxes, which need not be there.

    Raises:
        DataError: If two images share one.
    """
    images_of: dict[Path, list[Path]] = {}
    for image in images:
        images_of.setdefault(label_path(image), []).append(image)
    return {one_of(same): label for label, same in images_of.items()}


def label_path(image: Path) -> Path:
    """The text of an image's boxes: the last folder "images" becomes "labels"."""
    *folders, name = image.with_suffix(".txt").parts
    for place in reversed(range(len(folders))):
        if folders[place] == "images":
            folders[place] = "labels"
            break
    return Path(*folders, name)


def orphans(label_of: Mapping[Path, Path]) -> list[Path]:
    """Label files beside those of `label_of` that no image has, also none outside of the lists."""
    used = set(label_of.values())
    found = []
    for labels, images in sorted({(one.parent, image.parent) for image, one in label_of.items()}):
        if labels == images or not labels.is_dir():
            continue  # a text beside an image may be anything
        names = {image.stem for image in images.iterdir()} | {"classes"}  # some tools write that
        found += [path for path in sorted(labels.glob("*.txt")) if path.stem not in names]
    return [path for path in found if path not in used]


def read_image(image: Path, labels: Path, classes: int) -> AnnotatedImage:
    """What a label file says about its image.

    Raises:
        DataError: If a line cannot be understood.
    """
    lines = read_lines(labels) if os.path.lexists(labels) else []
    objects = tuple(read_object(line.split(), classes, labels, entry) for entry, line in lines)
    return AnnotatedImage(image, labels, objects, fractions=True)


def read_object(fields: list[str], classes: int, file: Path, entry: str) -> LabelledBox:
    """An object of an image: ``class cx cy w h``.

    Raises:
        DataError: If the line is another, such as the outline of a segmentation.
    """
    if len(fields) != FIELDS:
        raise DataError(file, entry, f"{kind_of_line(len(fields))}, expected class cx cy w h")
    label = as_whole(fields[0], file, f"{entry}: class")
    if not 0 <= label < classes:
        raise DataError(file, f"{entry}: class", f"{label}, expected one of 0 to {classes - 1}")
    cx, cy, w, h = (as_number(text, file, entry) for text in fields[1:])
    largest = max(cx, cy, w, h)
    if LARGEST < largest < float("inf"):
        raise DataError(file, entry, f"{largest:g}, expected fractions of the image, at most 1")
    return LabelledBox(entry, (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), label)


def kind_of_line(count: int) -> str:
    """What a line of so many fields is most likely to be."""
    if count == 9:
        return "9 fields are an oriented box, or the outline of a segmentation"
    if count > 6 and count % 2:
        return f"{count} fields are the outline of a segmentation"
    if count == 6:
        return "6 fields are a detection with its score"
    return f"{count} fields"
