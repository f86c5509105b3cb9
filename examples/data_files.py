"""Reading the files of a data set; a fault is told in one line, with the file and the entry.

Texts are read as UTF-8 and names are looked up as UTF-8, whatever the locale says.
"""

import codecs
import math
import os
import re
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
FLAGS = {"": False, "0": False, "false": False, "1": True, "true": True}

LONGEST = 60
"""Letters of a value in a message."""


class DataError(ValueError):
    """A fault in an input file: ``file: entry: what is wrong, what was expected``.

    Args:
        file: The file to mend.
        entry: Where in the file, or None for the whole of it.
        problem: What is wrong, and what was expected.
    """

    def __init__(self, file: Path, entry: str | None, problem: str) -> None:
        parts = [str(file), *([entry] if entry else []), problem]
        super().__init__(": ".join(parts))


def existing_folder(folder: Path) -> Path:
    """`folder`, if it is there.

    Raises:
        DataError: If it is not.
    """
    if not os.path.isdir(folder):
        actual = "a file" if os.path.exists(folder) else "not there"
        raise DataError(folder, None, f"{actual}, expected a folder")
    return folder


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        DataError: If it is not there or cannot be opened.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(path, None, "not there, expected a file") from None
    except OSError as error:
        raise DataError(path, None, f"cannot be read ({error.strerror}), expected a file") from None


def read_text(path: Path) -> str:
    """A text in UTF-8, or in UTF-16 if its first bytes say so; a byte order mark is left out.

    Raises:
        DataError: If the file cannot be read or is no such text.
    """
    content = read_bytes(path)
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(path, f"byte {error.start}", "not UTF-8, expected a text") from None


def read_lines(path: Path) -> list[tuple[str, str]]:
    """The lines of a text that are not blank: their entry, such as "line 3", and what they say."""
    lines = enumerate(re.split(r"\r\n|\r|\n", read_text(path)), start=1)
    return [(f"line {place}", line.strip()) for place, line in lines if line.strip()]


def named(folder: Path, name: str) -> Path:
    """The path of `name`, which a text gives, in `folder`.

    Files are named in bytes, which a locale without UTF-8 reads as other letters; so the name is
    written as UTF-8 and read back as the locale does.
    """
    return folder / os.fsdecode(name.encode("utf-8", "surrogatepass"))


def find_file(folders: Iterable[Path], name: str) -> Path | None:
    """The file that a text names, in the first of `folders` that has it, or None.

    A name that Windows wrote may have its slashes the other way.
    """
    spellings = (name, name.replace("\\", "/"))
    paths = (named(folder, spelling) for folder in folders for spelling in spellings)
    return next((path for path in paths if os.path.isfile(path)), None)


def listed(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files below `folder` with one of the `suffixes`, large or small letters, in order.

    Hidden files are left out: a Mac puts one beside each file that it packs.
    """
    return sorted(
        path
        for path in files_below(existing_folder(folder))
        if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )


def files_below(folder: Path) -> Iterator[Path]:
    """The files in `folder` and its folders, links to folders too; each folder once.

    Raises:
        DataError: If one cannot be opened.
    """

    def refuse(error: OSError) -> None:
        problem = f"cannot be read ({error.strerror}), expected a folder"
        raise DataError(Path(error.filename), None, problem)

    seen = set()
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()  # a link to a folder above leads round for ever
            continue
        seen.add(real)
        yield from (Path(place, name) for name in names)


def as_number(value: object, file: Path, entry: str) -> float:
    """The number that `value` is or spells; it may be infinite or not a number.

    Raises:
        DataError: If it is or spells none.
    """
    try:
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise DataError(file, entry, f"{quoted(value)}, expected a number")


def as_whole(value: object, file: Path, entry: str) -> int:
    """The whole number that `value` is or spells.

    Raises:
        DataError: If it is or spells none.
    """
    number = as_number(value, file, entry)
    if not math.isfinite(number) or number != int(number):
        raise DataError(file, entry, f"{quoted(value)}, expected a whole number")
    return int(number)


def as_flag(value: object, file: Path, entry: str) -> bool:
    """The yes or no that `value` is or spells: 0, 1, true or false; None is no.

    Raises:
        DataError: If it is something else.
    """
    spelled = "" if value is None else str(value).strip().lower().removesuffix(".0")
    if spelled not in FLAGS:
        raise DataError(file, entry, f"{quoted(value)}, expected 0 or 1")
    return FLAGS[spelled]


def as_size(width: object, height: object, file: Path, entry: str) -> tuple[int, int] | None:
    """The (width, height) that an annotation states, or None: tools leave it out or write 0.

    Raises:
        DataError: If they are no whole numbers.
    """
    if any(side is None or side == "" for side in (width, height)):
        return None
    sides = (as_whole(width, file, f"{entry}: width"), as_whole(height, file, f"{entry}: height"))
    return sides if all(sides) else None


def quoted(value: object) -> str:
    """`value` as Python writes it, cut where it is too long for a line."""
    short = reprlib.Repr()  # which does not write out what would be cut
    short.maxstring = short.maxother = short.maxlong = 4 * LONGEST
    text = short.repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def counted(count: int, one: str, many: str) -> str:
    """A number with its noun: "1 image", "2,000 images"."""
    return f"{count:,} {one if count == 1 else many}"


def by_name(folder: Path, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    """The files below `folder` by their path in it without suffix; several may share one."""
    found: dict[str, list[Path]] = {}
    for path in listed(folder, suffixes):
        found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    return found


def one_of(paths: Sequence[Path], name: str = "") -> Path:
    """The only one of some files that differ in their suffix, or the one that is called `name`.

    Raises:
        DataError: If there are several and none is called so.
    """
    called = [path for path in paths if path.name == name] or paths
    if len(called) > 1:
        others = " and ".join(path.name for path in called[1:])
        raise DataError(called[0], None, f"shares its name with {others}, expected one file")
    return called[0]


def note(source: Path, paths: Sequence[Path], one: str, many: str) -> list[str]:
    """A line on some files, with their number and the first of them; none if there are no files."""
    if not paths:
        return []
    first = paths[0].name if len(paths) == 1 else f"the first is {paths[0].name}"
    return [f"{source}: {counted(len(paths), one, many)} ({first})"]
