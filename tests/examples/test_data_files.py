"""Texts, names and numbers of a data set's files."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from data_files import (
    DataError,
    as_flag,
    as_number,
    as_size,
    as_whole,
    find_file,
    listed,
    named,
    quoted,
    read_lines,
    read_text,
)

FILE = Path("boxes.json")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("Größe\n\n b c \r\n".encode(encoding))
    assert read_text(tmp_path / "a.txt").startswith("Größe")
    assert read_lines(tmp_path / "a.txt") == [("line 1", "Größe"), ("line 3", "b c")]


def test_a_text_that_is_not_utf_8(tmp_path):
    (tmp_path / "a.txt").write_bytes("Größe".encode("latin-1"))
    with pytest.raises(DataError, match="a.txt: byte 2: not UTF-8, expected a text"):
        read_text(tmp_path / "a.txt")


def test_a_file_that_is_not_there_or_a_folder(tmp_path):
    with pytest.raises(DataError, match="lost.txt: not there, expected a file"):
        read_text(tmp_path / "lost.txt")
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\), expected a file"):
        read_text(tmp_path)


def test_names_are_utf_8_in_any_locale(tmp_path):
    (tmp_path / "Größe.txt").write_text("found", encoding="utf-8")
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from data_files import named, read_text;"
        "assert sys.getfilesystemencoding() != 'utf-8', 'the locale is not the one tested';"
        r"print(read_text(named(Path(sys.argv[2]), 'Gr\u00f6\u00dfe.txt')))"
    )
    examples = str(Path(__file__).parents[2] / "examples")
    ascii_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program, examples, str(tmp_path)],
        env=os.environ | ascii_locale,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "found\n"


def test_a_name_that_cannot_be_written_names_no_file(tmp_path):
    assert not named(tmp_path, "\ud800.jpg").is_file()
    assert not named(tmp_path, "a\0.jpg").is_file()


@pytest.mark.parametrize(
    ("value", "number"),
    [pytest.param(2, 2, id="a number"), pytest.param(" 2.5", 2.5, id="a text that spells one")],
)
def test_numbers(value, number):
    assert as_number(value, FILE, "x") == number


@pytest.mark.parametrize("value", ["(88, 100)", "", "1,5", None, True, [1], 10**400])
def test_what_is_no_number(value):
    with pytest.raises(DataError, match=r"boxes.json: x: .*, expected a number"):
        as_number(value, FILE, "x")


@pytest.mark.parametrize("value", [1.5, "nan", "inf"])
def test_what_is_no_whole_number(value):
    with pytest.raises(DataError, match=re.escape(f"x: {value!r}, expected a whole number")):
        as_whole(value, FILE, "x")


@pytest.mark.parametrize(
    ("value", "flag"),
    [
        *[(yes, True) for yes in (1, 1.0, True, "1", " 1 ", "True")],
        *[(no, False) for no in (0, 0.0, False, "0", "", None, "false")],
    ],
)
def test_flags(value, flag):
    assert as_flag(value, FILE, "ignore") is flag


@pytest.mark.parametrize("value", [2, -1, "maybe", []])
def test_what_is_no_flag(value):
    with pytest.raises(DataError, match=r"boxes.json: ignore: .*, expected 0 or 1"):
        as_flag(value, FILE, "ignore")


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        pytest.param("64", 48.0, (64, 48), id="stated"),
        pytest.param(None, None, None, id="left out"),
        pytest.param("", "", None, id="empty"),
        pytest.param("0", "0", None, id="0 is what some tools write"),
    ],
)
def test_the_size_that_an_annotation_states(width, height, size):
    assert as_size(width, height, FILE, "size") == size


def test_lines_end_where_an_editor_ends_them(tmp_path):
    """Unicode has more ends of a line, which a file name may hold."""
    (tmp_path / "a.txt").write_bytes("a\u0085b\rc\r\nd\u2028e\n".encode())
    lines = [line for _, line in read_lines(tmp_path / "a.txt")]
    assert lines == ["a\u0085b", "c", "d\u2028e"]


def test_a_file_by_a_name_that_windows_wrote(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jpg").touch()
    assert find_file([tmp_path / "lost", tmp_path], "sub\\a.jpg") == tmp_path / "sub" / "a.jpg"


@pytest.mark.parametrize("name", ["lost.jpg", "sub", "a\0.jpg", "\ud800.jpg", "a" * 5000])
def test_a_name_of_no_file(tmp_path, name):
    (tmp_path / "sub").mkdir()
    assert find_file([tmp_path], name) is None


def test_files_behind_links_are_listed_once(tmp_path):
    folder, other = tmp_path / "folder", tmp_path / "other"
    for path in (folder / "a.JPG", other / "b.jpg"):
        path.parent.mkdir()
        path.touch()
    (folder / "linked").symlink_to(other)
    (folder / "round").symlink_to(folder)
    (folder / "broken.jpg").symlink_to("nowhere")
    found = [path.relative_to(folder).as_posix() for path in listed(folder, (".jpg",))]
    assert found == ["a.JPG", "broken.jpg", "linked/b.jpg"]


def test_a_folder_that_cannot_be_opened(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(DataError, match=r"sub: cannot be read .Permission denied., expected a fo"):
        listed(tmp_path, (".jpg",))


def test_a_value_in_a_message_is_short():
    nested = ["x"] * 9
    for _ in range(30):
        nested = [nested] * 9
    assert len(quoted(nested)) <= 63
    assert quoted("a" * 10**6) == f"'{'a' * 59}..."
    assert quoted([1, 2, 3]) == "[1, 2, 3]"
