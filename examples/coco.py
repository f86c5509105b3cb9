"""COCO: one JSON file with ``images``, ``annotations`` and ``categories``, and a folder of images.

- By file name every fifth image is tested, the others are trained on.
- Objects with ``iscrowd`` or ``ignore`` are ignored.
- A number, a flag or an id may be spelled as a text, as some tools write it: "1" is 1.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_files import (
    DataError,
    as_flag,
    as_number,
    as_size,
    existing_folder,
    find_file,
    quoted,
    read_text,
)
from photos import AnnotatedImage, Annotations, LabelledBox, every_fifth

Entry = Mapping[str, Any]
Key = int | str

IGNORING = ("iscrowd", "ignore")
"""The flags of an object that counts neither for nor against a detector."""


def split_places(text: str) -> tuple[Path, Path]:
    """The folder and the file of ``IMAGES:ANNOTATIONS.json``, whose paths may hold colons too.

    The colon between them is one with a folder before it and a file behind it, or else the last.
    """
    colons = [place for place, letter in enumerate(text) if letter == ":"]
    choices = [
        (Path(os.path.expanduser(text[:colon])), Path(os.path.expanduser(text[colon + 1 :])))
        for colon in reversed(colons)
    ]
    there = [one for one in choices if os.path.isdir(one[0]) and os.path.isfile(one[1])]
    return (there or choices)[0]


def read_coco(images: Path, file: Path) -> Annotations:
    """What a COCO file says about a folder of images.

    Raises:
        DataError: If a file is missing or damaged, or an entry cannot be understood.
    """
    content = read_json(file)
    existing_folder(images)
    categories = by_id(content, "categories", file)
    keys = sorted(categories, key=lambda key: (isinstance(key, str), key))
    classes = category_names([categories[key] for key in keys], file)
    label_of = {key: label for label, key in enumerate(keys)}

    image_of = by_id(content, "images", file)
    objects_of: dict[Key, list[LabelledBox]] = {key: [] for key in image_of}
    for entry, annotation in entries(content, "annotations", file):
        image_id = reference(annotation, "image_id", image_of, file, entry)
        category = reference(annotation, "category_id", label_of, file, entry)
        objects_of[image_id].append(read_object(annotation, label_of[category], file, entry))

    photos: dict[str, AnnotatedImage] = {}
    for key, (entry, image) in image_of.items():
        path = image_path(images, image, file, entry)
        other = photos.get(real := os.path.realpath(path))  # a file may be named in several ways
        if other:
            problem = f"{path.name} is that of {other.entry} too, expected one id a file"
            raise DataError(file, f"{entry}: file_name", problem)
        size = as_size(image.get("width"), image.get("height"), file, entry)
        photos[real] = AnnotatedImage(path, file, tuple(objects_of[key]), entry, size)
    ordered = sorted(photos.values(), key=lambda photo: str(photo.path))
    return Annotations(file, classes, ordered, *every_fifth([photo.path for photo in ordered]))


def read_json(file: Path) -> Entry:
    """The content of a JSON file.

    Raises:
        DataError: If it is no JSON, or no object.
    """
    text = read_text(file)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise DataError(file, place, f"{error.msg}, expected JSON") from None
    except (RecursionError, ValueError) as error:  # a number of thousands of digits
        raise DataError(file, None, f"cannot be read ({error}), expected a COCO file") from None
    if not isinstance(content, dict):
        problem = f"{quoted(content)}, expected an object with images, annotations and categories"
        raise DataError(file, None, problem)
    return content


def entries(content: Entry, part: str, file: Path) -> Iterator[tuple[str, Entry]]:
    """The entries of "images", "annotations" or "categories", each with its place for messages.

    Raises:
        DataError: If the part is missing, or is no list of objects.
    """
    found = member(content, part, file, None)
    if not isinstance(found, list):
        raise DataError(file, part, f"{quoted(found)}, expected a list")
    for place, entry in enumerate(found):
        if not isinstance(entry, dict):
            raise DataError(file, f"{part}[{place}]", f"{quoted(entry)}, expected an object")
        yield f"{part}[{place}]", entry


def by_id(content: Entry, part: str, file: Path) -> dict[Key, tuple[str, Entry]]:
    """The entries of "images" or "categories" by their id.

    Raises:
        DataError: If there is none, or two share an id.
    """
    found: dict[Key, tuple[str, Entry]] = {}
    for entry, content_of_entry in entries(content, part, file):
        key = as_key(member(content_of_entry, "id", file, entry), file, f"{entry}: id")
        if key in found:
            problem = f"{quoted(key)} is that of {found[key][0]} too, expected another"
            raise DataError(file, f"{entry}: id", problem)
        found[key] = entry, content_of_entry
    if not found:
        raise DataError(file, part, "empty, expected at least one")
    return found


def reference(entry: Entry, name: str, known: Mapping[Key, Any], file: Path, place: str) -> Key:
    """The id that an annotation has as `name`.

    Raises:
        DataError: If nothing has that id.
    """
    key = as_key(member(entry, name, file, place), file, f"{place}: {name}")
    if key not in known:
        part = {"image_id": "images", "category_id": "categories"}[name]
        raise DataError(file, f"{place}: {name}", f"{quoted(key)}, expected an id in {part}")
    return key


def read_object(annotation: Entry, label: int, file: Path, entry: str) -> LabelledBox:
    """An object of an image.

    Raises:
        DataError: If it has no box of four numbers.
    """
    box = member(annotation, "bbox", file, entry)
    where = f"{entry}: bbox"
    if not isinstance(box, list) or len(box) != 4:
        raise DataError(file, where, f"{quoted(box)}, expected [x, y, width, height]")
    x, y, width, height = (as_number(side, file, where) for side in box)
    flags = [as_flag(annotation.get(name), file, f"{entry}: {name}") for name in IGNORING]
    return LabelledBox(entry, (x, y, x + width, y + height), label, ignore=any(flags))


def image_path(images: Path, image: Entry, file: Path, entry: str) -> Path:
    """The file of an image.

    Raises:
        DataError: If there is no such file.
    """
    name = member(image, "file_name", file, entry)
    if not isinstance(name, str) or not name:
        raise DataError(file, f"{entry}: file_name", f"{quoted(name)}, expected a file's name")
    if path := find_file([images], name):
        return path
    problem = f"{quoted(name)} is not in {images}, expected the name of a file there"
    raise DataError(file, f"{entry}: file_name", problem)


def category_names(categories: Iterable[tuple[str, Entry]], file: Path) -> tuple[str, ...]:
    """The name of each class.

    Raises:
        DataError: If one has none, or that of another.
    """
    entry_of: dict[str, str] = {}
    for entry, category in categories:
        name = member(category, "name", file, entry)
        if not isinstance(name, str | int) or isinstance(name, bool) or not str(name).strip():
            raise DataError(file, f"{entry}: name", f"{quoted(name)}, expected a text")
        if str(name) in entry_of:
            problem = f"{quoted(name)} is that of {entry_of[str(name)]} too, expected another"
            raise DataError(file, f"{entry}: name", problem)
        entry_of[str(name)] = entry
    return tuple(entry_of)


def member(entry: Entry, name: str, file: Path, place: str | None) -> Any:
    """What an entry says under a name.

    Raises:
        DataError: If it says nothing.
    """
    if name not in entry:
        found = ", ".join(map(str, entry)) or "nothing"
        raise DataError(file, place, f"no {name}, expected one beside {found}")
    return entry[name]


def as_key(value: object, file: Path, entry: str) -> Key:
    """An id: a whole number, or else a text. "7" and 7.0 are 7.

    Raises:
        DataError: If it is neither.
    """
    if isinstance(value, str):  # "007" is a name, and not the number 7
        return int(value) if re.fullmatch("0|[1-9][0-9]{0,18}", value) else value
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
        return int(value)
    raise DataError(file, entry, f"{quoted(value)}, expected a whole number or a text")
