"""Pascal VOC: ``Annotations/*.xml`` beside ``JPEGImages``, and lists in ``ImageSets/Main``.

- An image has the name of its annotation, with any suffix, or else the one in ``<filename>``.
- A listed image without an annotation has no object.
- Objects with ``difficult`` or ``ignore`` are ignored.
- Coordinates are taken as written: today's tools do not count pixels from one, as the original
  challenge did.
- ``train.txt`` is trained on, or else ``trainval.txt``; ``test.txt`` is tested, or else
  ``val.txt``. Where no list says what to test, every fifth image is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from data_files import (
    IMAGE_SUFFIXES,
    DataError,
    as_flag,
    as_number,
    as_size,
    by_name,
    existing_folder,
    named,
    note,
    one_of,
    quoted,
    read_bytes,
    read_lines,
)
from photos import AnnotatedImage, Annotations, LabelledBox, every_fifth

IGNORING = ("difficult", "ignore")
"""The flags of an object that counts neither for nor against a detector."""

FLAGS = ("-1", "0", "1")
"""What the challenge's lists write behind a name: whether the image shows an object of a class."""


@dataclass(frozen=True)
class Document:
    """An annotation file and what is in it."""

    path: Path
    root: Element

    @property
    def filename(self) -> str:
        """The image that it names itself, or ""."""
        return (self.root.findtext("filename") or "").strip()

    def objects(self) -> Iterator[tuple[str, str, Element]]:
        """The entry, the class and the element of each object."""
        for place, element in enumerate(self.root.iter("object")):
            entry = f"object[{place}]"
            name = (element.findtext("name") or "").strip()
            if not name:
                raise DataError(self.path, entry, "no name, expected that of its class")
            yield entry, name, element


@dataclass(frozen=True)
class Pairing:
    """Which annotation is about which image.

    Attributes:
        images: What a list may name -> the image, with an annotation or without.
        documents: Image -> its annotation, where it has one.
        orphans: Names of the annotations without an image.
    """

    images: dict[str, Path]
    documents: dict[Path, Document]
    orphans: dict[str, Document]

    @property
    def bare(self) -> list[Path]:
        """Images without an annotation."""
        return [path for path in self.images.values() if path not in self.documents]


def read_voc(folder: Path) -> Annotations:
    """What a VOC folder says; annotations that no list names are read and checked too.

    Raises:
        DataError: If a file is missing or damaged, or an entry cannot be understood.
    """
    pairing = pair(existing_folder(folder))
    train, test, notes = split(folder / "ImageSets" / "Main", pairing)

    used = {*train, *test}
    without_objects = [path for path in pairing.bare if path in used]
    unlisted = [path for path in pairing.bare if path not in used]
    orphans = [document.path for document in pairing.orphans.values()]
    notes += note(
        folder / "JPEGImages",
        without_objects,
        "image without an annotation is read as one without objects",
        "images without an annotation are read as ones without objects",
    )
    notes += note(
        folder / "JPEGImages",
        unlisted,
        "image with neither an annotation nor a line in a list is left out",
        "images with neither an annotation nor a line in a list are left out",
    )
    notes += note(
        folder / "Annotations",
        orphans,
        "annotation without an image is left out",
        "annotations without an image are left out",
    )

    documents = pairing.documents
    classes = sorted({name for one in documents.values() for _, name, _ in one.objects()})
    images = [read_image(path, document, classes) for path, document in documents.items()]
    images += [AnnotatedImage(path, source=path) for path in without_objects]
    return Annotations(folder, tuple(classes), images, train, test, notes)


def pair(folder: Path) -> Pairing:
    """Reads the annotations and finds the image of each.

    Raises:
        DataError: If one cannot be read, or two files claim the same place.
    """
    photos = folder / "JPEGImages"
    documents = {
        name: read_document(one_of(paths))
        for name, paths in by_name(folder / "Annotations", (".xml",)).items()
    }
    images = {
        name: one_of(paths, documents[name].filename if name in documents else "")
        for name, paths in by_name(photos, IMAGE_SUFFIXES).items()
    }
    unclaimed = {path for name, path in images.items() if name not in documents}
    pairing = Pairing({**images}, {}, {})
    for name, document in documents.items():
        path = images.get(name) or named(photos, document.filename)
        if name not in images and path not in unclaimed:
            pairing.orphans[name] = document
            continue
        if path in pairing.documents:
            other = pairing.documents[path].path.name
            problem = f"{path.name} is that of {other} too, expected one annotation an image"
            raise DataError(document.path, "filename", problem)
        pairing.images[name], pairing.documents[path] = path, document
    return pairing


# --- Lists ----------------------------------------------------------------------------------------


def split(folder: Path, pairing: Pairing) -> tuple[list[Path], list[Path], list[str]]:
    """The images to train on, those to test, and a note where this was a choice.

    Args:
        folder: That of the lists.
        pairing: What the lists may name.
    """
    lists = {
        name: read_list(path, pairing)
        for name in ("train", "trainval", "val", "test")
        if (path := folder / f"{name}.txt").exists()
    }
    trained = next((name for name in ("train", "trainval") if name in lists), None)
    tested = next((name for name in ("test", "val") if name in lists), None)
    train = lists[trained] if trained else list(pairing.documents)
    if tested is None:
        source = f"of {trained}.txt" if trained else "with an annotation"
        return *every_fifth(train), [f"{folder}: no test.txt: every fifth image {source} is tested"]
    test = lists[tested]
    notes = []
    if trained != "train":  # trainval.txt and all annotations contain what is tested
        train = [path for path in train if path not in set(test)]
        source = "trainval.txt has" if trained else "annotations there are"
        notes += [f"{folder}: no train.txt: what {source} beside {tested}.txt is trained on"]
    if tested != "test":
        notes += [f"{folder}: no test.txt: {tested}.txt is tested"]
    return train, test, notes


def read_list(path: Path, pairing: Pairing) -> list[Path]:
    """The images that a list names, a line each.

    Raises:
        DataError: If a line names none.
    """
    return [listed_image(line, path, entry, pairing) for entry, line in read_lines(path)]


def listed_image(line: str, path: Path, entry: str, pairing: Pairing) -> Path:
    """The image of a line: a name, which may hold blanks, with a suffix or not, then maybe a flag.

    Raises:
        DataError: If there is no such image.
    """
    *name, flag = line.rsplit(maxsplit=1)
    for text in [line, *(name if flag in FLAGS else [])]:
        written = named(Path(), text)
        bare = written.with_suffix("") if written.suffix.lower() in IMAGE_SUFFIXES else written
        for candidate in (written.as_posix(), bare.as_posix()):
            if candidate in pairing.images:
                return pairing.images[candidate]
            if candidate in pairing.orphans:
                orphan = pairing.orphans[candidate].path.name
                problem = f"{quoted(line)} has {orphan}, expected an image in JPEGImages"
                raise DataError(path, entry, problem)
    problem = f"{quoted(line)} is neither in JPEGImages nor in Annotations, expected an image"
    raise DataError(path, entry, problem)


# --- Annotations ----------------------------------------------------------------------------------


def read_document(path: Path) -> Document:
    """An annotation file.

    Raises:
        DataError: If it is no VOC annotation.
    """
    content = read_bytes(path)
    if not content.strip():
        raise DataError(path, None, "empty, expected an <annotation>")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # syntax, or its encoding
        raise DataError(path, None, f"not XML ({error}), expected an <annotation>") from None
    if root.tag.lower() != "annotation":
        raise DataError(path, None, f"<{root.tag}>, expected an <annotation>")
    return Document(path, root)


def read_image(path: Path, document: Document, classes: Sequence[str]) -> AnnotatedImage:
    """What an annotation says about its image.

    Raises:
        DataError: If an entry cannot be understood.
    """
    width, height = (
        (document.root.findtext(f"size/{side}") or "").strip() for side in ("width", "height")
    )
    objects = tuple(
        read_object(document.path, entry, element, classes.index(name))
        for entry, name, element in document.objects()
    )
    size = as_size(width, height, document.path, "size")
    return AnnotatedImage(path, document.path, objects, entry="size", size=size)


def read_object(path: Path, entry: str, element: Element, label: int) -> LabelledBox:
    """An object of an annotation.

    Raises:
        DataError: If it has no box, or one that is not made of numbers.
    """
    box = element.find("bndbox")
    if box is None:
        raise DataError(path, entry, "no bndbox, expected xmin, ymin, xmax and ymax in one")
    x1, y1, x2, y2 = (
        as_number(box.findtext(side), path, f"{entry}: {side}")
        for side in ("xmin", "ymin", "xmax", "ymax")
    )
    flags = [as_flag(element.findtext(name), path, f"{entry}: {name}") for name in IGNORING]
    return LabelledBox(entry, (x1, y1, x2, y2), label, ignore=any(flags))
