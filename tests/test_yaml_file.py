"""Configs in files: how YAML is read, and what is wrong with a file."""

import re
import textwrap
from pathlib import Path

import pytest

import detloss
from detloss.registry import MATCHERS

CONFIGS = Path(__file__).parents[1] / "configs"


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(textwrap.dedent(text))
    return path


def test_a_mistake_in_a_file_names_the_file(tmp_path):
    path = write(
        tmp_path, "matcher: {type: max_iuo}\nbox: {type: l1}\nclassification: {type: hinge}"
    )
    with pytest.raises(detloss.ConfigError) as error:
        detloss.load_config(path)
    assert str(error.value) == (
        f"{path}: matcher.type: unknown matcher 'max_iuo', accepted: "
        f"{', '.join(MATCHERS.names())}; did you mean 'max_iou'?"
    )


def test_1e_7_without_a_point_is_a_number(tmp_path):
    path = write(
        tmp_path,
        """
        matcher: {type: max_iou}
        classification: {type: sigmoid_focal}
        box: {type: ciou, eps: 1e-6}
        """,
    )
    assert detloss.load_config(path).terms["box"].loss.eps == 1e-6


def test_a_key_given_twice_is_a_mistake(tmp_path):
    path = write(tmp_path, "box: {type: l1}\nbox: {type: ciou}\n")
    with pytest.raises(
        detloss.ConfigError, match=r"mine.yaml.*key 'box' is given twice.*\n.*line 2"
    ):
        detloss.load_config(path)


def test_yaml_merge_keys_share_options(tmp_path):
    path = write(
        tmp_path,
        """
        matcher: {type: max_iou}
        classification: &focal {type: sigmoid_focal, alpha: 0.3, gamma: 1.5}
        objectness: {<<: *focal, gamma: 2.0}
        """,
    )
    criterion = detloss.load_config(path)
    assert criterion.terms["classification"].loss.config()["gamma"] == 1.5
    assert criterion.terms["objectness"].loss.config()["gamma"] == 2.0
    assert criterion.terms["objectness"].loss.config()["alpha"] == 0.3


def test_a_byte_order_mark_is_no_key(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbfmatcher: {type: max_iou}\n")
    assert not detloss.load_config(path).terms


def test_a_file_that_is_not_utf_8(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes("# für Kästen\nmatcher: {type: max_iou}\n".encode("latin-1"))
    with pytest.raises(detloss.ConfigError, match="mine.yaml: expected text in UTF-8, got"):
        detloss.load_config(path)


def test_a_folder_is_no_config(tmp_path):
    with pytest.raises(detloss.ConfigError, match="expected a YAML file, got Is a directory"):
        detloss.load_config(tmp_path)


def test_a_shipped_config_is_found_by_name():
    by_path = detloss.load_config(CONFIGS / "retinanet.yaml")
    assert detloss.load_config("retinanet").config() == by_path.config()
    message = "unknown config 'retinanett'.*did you mean 'retinanet'"
    with pytest.raises(detloss.ConfigError, match=message):
        detloss.load_config("retinanett")


@pytest.mark.parametrize(
    ("text", "got"),
    [("", "nothing"), ("# box:\n", "nothing"), ("- a\n- b\n", r"\['a', 'b'\]"), ("ciou", "'ciou'")],
)
def test_a_file_that_is_no_mapping(tmp_path, text, got):
    with pytest.raises(
        detloss.ConfigError, match=f"mine.yaml: expected a mapping with matcher, .*, got {got}$"
    ):
        detloss.load_config(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("box: {type: l1\n", "expected ',' or '}'", id="an open brace"),
        pytest.param("box:\n\ttype: l1\n", r"character '\t' that cannot start", id="a tab"),
        pytest.param("[box]: {type: l1}\n", "unhashable key", id="a list as a key"),
        pytest.param("box: *other\n", "undefined alias 'other'", id="an alias of nothing"),
        pytest.param("box: !loss {type: l1}\n", "tag '!loss'", id="a tag"),
        pytest.param("a: 1\n---\nb: 2\n", "another document", id="two documents"),
    ],
)
def test_broken_yaml_names_the_line(tmp_path, text, reason):
    with pytest.raises(detloss.ConfigError) as error:
        detloss.load_config(write(tmp_path, text))
    message = str(error.value)
    assert re.match(r"(?s).*mine\.yaml: not valid YAML: .*mine\.yaml\", line \d", message), message
    assert reason in message


def test_a_date_that_is_none_is_broken_yaml(tmp_path):
    with pytest.raises(detloss.ConfigError, match=r"mine\.yaml: not valid YAML: month must be in"):
        detloss.load_config(write(tmp_path, "matcher: {type: max_iou, positive: 2020-13-01}\n"))


@pytest.mark.parametrize("number", ["1e-1", ".1e0", "1.e-1", "+.1", "1E-1"])
def test_a_number_is_one_however_it_is_written(tmp_path, number):
    text = f"matcher: {{type: max_iou}}\nclassification: {{type: sigmoid_focal, alpha: {number}}}\n"
    criterion = detloss.load_config(write(tmp_path, text))
    assert criterion.terms["classification"].loss.alpha == 0.1


@pytest.mark.parametrize("word", ["yes", "true", "on", "no"])
def test_what_yaml_reads_as_a_boolean_is_no_number_and_no_quality(tmp_path, word):
    for option, message in [("gamma", "expected a valid number"), ("label", "unknown quality")]:
        lines = (
            f"matcher: {{type: max_iou}}\nclassification: {{type: sigmoid_focal, {option}: {word}}}"
        )
        with pytest.raises(detloss.ConfigError, match=f"classification.{option}: {message}"):
            detloss.load_config(write(tmp_path, lines))


@pytest.mark.parametrize("path", [".", "./", "/"])
def test_a_folder_by_its_path_is_not_the_name_of_a_config(path):
    with pytest.raises(detloss.ConfigError, match="expected a YAML file, got"):
        detloss.load_config(path)


@pytest.mark.parametrize(
    ("path", "cure"),
    [
        ("nowhere.yaml", ""),
        ("nowhere/retinanet.yaml", "; detloss comes with a config of that name, 'retinanet'"),
        (Path("retinanet"), "; detloss comes with a config of that name, 'retinanet'"),
    ],
)
def test_a_missing_file(path, cure):
    with pytest.raises(FileNotFoundError) as error:
        detloss.load_config(path)
    assert str(error.value) == f"{path}: there is no such file{cure}"
