"""YOLO data sets: a YAML file, and a label text an image."""

import re
from pathlib import Path

import pytest
import torch
from data_files import DataError
from detection_data import load_data
from yolo import label_path


def names_of(images):
    return [photo.path.name for photo in images.photos]


def test_boxes_are_fractions_of_the_image_from_their_centre(yolo):
    data = load_data(yolo.data)
    assert data.classes == ("cat", "dog")
    assert (data.notes, data.changes) == ((), ())
    assert (names_of(data.train), names_of(data.test)) == (["a.jpg", "b.jpg"], ["c.jpg"])
    image, target = data.train[0]
    assert image.shape == (3, 240, 320)
    assert target["boxes"].tolist() == [[120, 60, 200, 180], [0, 0, 160, 120]]
    assert target["labels"].tolist() == [1, 0]
    assert not target["ignore"].any()


def test_a_photo_that_exif_turns_has_its_fractions_of_what_is_shown(yolo):
    yolo.add("train/a", "1 0.5 0.5 0.25 0.5\n", orientation=6)
    image, target = load_data(yolo.data).train[0]
    assert image.shape == (3, 320, 240)
    assert target["boxes"].tolist() == [[90, 80, 150, 240]]


def test_an_empty_label_file_or_none_is_an_image_without_objects(yolo):
    yolo.labels("train/b").unlink()
    yolo.add("train/d", "\n")
    data = load_data(yolo.data)
    assert [len(data.train[index][1]["boxes"]) for index in range(3)] == [2, 0, 0]
    assert data.notes == (
        f"{yolo.file}: 1 image without a label file is read as one without objects (b.jpg)",
    )


def test_label_files_without_an_image_are_counted(yolo):
    for name in ("x", "y", "classes"):
        yolo.labels(f"train/{name}").write_text("")
    (line,) = load_data(yolo.data).notes
    assert line.endswith("2 label files without an image are left out (the first is x.txt)")


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("/data/images/train/a b.jpg", "/data/labels/train/a b.txt"),
        ("/images/set/train/images/a.b.png", "/images/set/train/labels/a.b.txt"),
        ("/data/photos/a.jpg", "/data/photos/a.txt"),
    ],
)
def test_where_the_labels_of_an_image_are(image, labels):
    assert label_path(Path(image)) == Path(labels)


def test_several_folders_lists_and_images(yolo):
    (yolo.folder / "list.txt").write_text("./images/val/c.jpg\n\nimages/train/b.jpg\r\n")
    yolo.content |= {"train": ["images/train", "list.txt"], "val": "images/val/c.jpg"}
    data = load_data(yolo.data)
    assert names_of(data.train) == ["a.jpg", "b.jpg", "c.jpg"]
    assert data.notes == (
        f"{yolo.file}: 1 repeated entry left out",
        f"{yolo.file}: 1 image is both trained on and tested (c.jpg)",
    )


def test_a_list_that_names_no_image(yolo):
    (yolo.folder / "list.txt").write_text("images/train/a.jpg\nimages/lost.jpg\n")
    yolo.content["train"] = "list.txt"
    with pytest.raises(DataError, match=r"list.txt: line 2: 'images/lost.jpg' is not there"):
        load_data(yolo.data)


@pytest.mark.parametrize(
    ("path", "train"),
    [
        pytest.param(None, "images/train", id="no path: from the YAML file"),
        pytest.param("", "images/train", id="an empty path"),
        pytest.param("images", "train", id="a path from the YAML file"),
        pytest.param(None, "../images/train", id="up from a split's own folder"),
    ],
)
def test_where_the_folders_are_looked_for(yolo, path, train):
    yolo.content |= {"path": path or "", "train": train, "val": train.replace("train", "val")}
    if path is None:
        del yolo.content["path"]
    assert names_of(load_data(yolo.data).train) == ["a.jpg", "b.jpg"]


def test_a_path_from_where_the_user_is(yolo, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    yolo.content["path"] = "yolo"
    assert names_of(load_data(yolo.data).train) == ["a.jpg", "b.jpg"]


def test_without_val_test_is_tested_or_every_fifth_image(yolo):
    yolo.content["test"] = yolo.content.pop("val")
    assert names_of(load_data(yolo.data).test) == ["c.jpg"]
    del yolo.content["test"]
    yolo.labels("train/b").write_text("0 .5 .5 .5 .5")
    data = load_data(yolo.data)
    assert (names_of(data.train), names_of(data.test)) == (["b.jpg"], ["a.jpg"])
    assert "neither val nor test: every fifth image of train is tested" in data.notes[0]


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["yes", "no"], ("yes", "no")),
        ({1: "dog", 0: "cat"}, ("cat", "dog")),
        (None, ("0", "1")),
    ],
)
def test_names_of_classes(yolo, names, classes):
    yolo.content |= {"names": names, "nc": 2}
    text = yolo.data  # writes the file
    yolo.file.write_text(yolo.file.read_text().replace("'", "").replace("null", ""))
    assert load_data(text).classes == classes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": None}, "names: None, expected a list of names, or a mapping from 0 on"),
        ({"names": {1: "cat", 2: "dog"}}, "names: classes [1, 2], expected each from 0 to 1"),
        ({"names": {"cat": 0}}, "names: 'cat', expected a number"),
        ({"names": "cat"}, "names: 'cat', expected a list of names"),
        ({"names": ["cat", "cat"]}, "names: 2 classes are 'cat', expected one"),
        ({"names": ["", "cat"]}, "names: ['', 'cat'], expected a list of names"),
        ({"nc": 10**9}, "nc: 1000000000, expected from 1 to 100000"),
        ({"nc": -1}, "nc: -1, expected from 1 to 100000"),
        ({"nc": 3}, "nc: 3, expected the 2 of names"),
        ({"nc": "two"}, "nc: 'two', expected a number"),
        ({"path": "lost"}, "path: 'lost' is not there, expected a folder"),
        ({"path": ["a"]}, "path: ['a'], expected a folder"),
        ({"train": "lost"}, "train: 'lost' is not in"),
        ({"train": {"a": 1}}, "train: 'a' is not in"),
        ({"train": [["a"]]}, "train: ['a'] is not in"),
        ({"train": None}, "train: no image, expected a folder or a list of images"),
        ({"train": "labels/train"}, "train: no image, expected a folder or a list of images"),
        ({"val": "lost"}, "val: 'lost' is not in"),
    ],
)
def test_a_yaml_file_that_cannot_be_understood(yolo, change, message):
    yolo.content |= change
    text = yolo.data
    yolo.file.write_text(yolo.file.read_text().replace("null", ""))
    with pytest.raises(DataError, match=re.escape(message)) as error:
        load_data(text)
    assert str(error.value).startswith(f"{yolo.file}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"names: [a", "line 1: expected ',' or ']', but got '<stream end>', expected YAML"),
        (b"a\x00b: 1", "unacceptable character"),
        (b"", "None, expected a mapping with path, train, val and names"),
        (b"- a", "['a'], expected a mapping"),
        (b"[" * 20_000, "maximum recursion depth exceeded"),
        (b"names: !!python/name:os.system", "line 1: could not determine a constructor"),
        (b"? [a]\n: b", "line 1: found unhashable key, expected YAML"),
        (b"names: [\xff]", "byte 8: not UTF-8"),
    ],
)
def test_a_file_that_is_no_yaml(yolo, content, message):
    text = yolo.data
    yolo.file.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(message)) as error:
        load_data(text)
    assert str(error.value).startswith(f"{yolo.file}: ")
    assert "\n" not in str(error.value)


def test_a_yaml_file_with_a_byte_order_mark_and_names_of_any_letters(yolo):
    text = yolo.data
    yolo.content["names"] = ["Müller", "дом"]
    lines = [f"{key}: {value}" for key, value in yolo.content.items()]
    yolo.file.write_bytes("\n".join(lines).encode("utf-8-sig"))
    assert load_data(text).classes == ("Müller", "дом")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 .1 .1 .2 .1 .2 .2", "7 fields are the outline of a segmentation, expected class cx cy"),
        ("0 0 0 0 1 1 1 1 0", "9 fields are an oriented box, or the outline of a segmentation"),
        ("0 .5 .5 .5 .5 .9", "6 fields are a detection with its score, expected class cx cy w h"),
        ("0 .5 .5 .5", "4 fields, expected class cx cy w h"),
        ("0,.5,.5,.5,.5", "1 fields, expected class cx cy w h"),
        ("cat .5 .5 .5 .5", "class: 'cat', expected a number"),
        ("0.5 .5 .5 .5 .5", "class: '0.5', expected a whole number"),
        ("2 .5 .5 .5 .5", "class: 2, expected one of 0 to 1"),
        ("-1 .5 .5 .5 .5", "class: -1, expected one of 0 to 1"),
        ("0 .5 x .5 .5", "'x', expected a number"),
        ("0 32 24 10 10", "32, expected fractions of the image, at most 1"),
        ("0 .5 .5 .5 1.5", "1.5, expected fractions of the image, at most 1"),
    ],
)
def test_a_line_of_a_label_file_that_cannot_be_understood(yolo, line, message):
    yolo.labels("train/a").write_text(f"0 .5 .5 .5 .5\n\n{line}\n")
    with pytest.raises(DataError, match=re.escape(message)) as error:
        load_data(yolo.data)
    assert str(error.value).startswith(f"{yolo.labels('train/a')}: line 3: ")


def test_a_bad_box_is_left_out_by_policy(yolo):
    yolo.labels("train/a").write_text("0 .5 .5 0 .5\n1.0 .5 .5 .5 .5\n0 nan .5 .5 .5\n")
    data = load_data(yolo.data)
    where = f"{yolo.folder}/./labels/train/a.txt".replace("/./", "/")
    assert data.changes == (
        f"{where}: line 1: box (32, 12, 32, 36) dropped: no area",
        f"{where}: line 3: box (nan, 12, nan, 36) dropped: not finite",
    )
    assert torch.equal(data.train[0][1]["labels"], torch.tensor([1]))


def test_two_images_that_share_a_label_file(yolo):
    yolo.image("train/a").rename(yolo.image("train/a").with_suffix(".png"))
    yolo.add("train/a")
    with pytest.raises(DataError, match=r"a.jpg: shares its name with a.png, expected one file"):
        load_data(yolo.data)


def test_a_label_file_that_is_a_folder(yolo):
    yolo.labels("train/b").unlink()
    yolo.labels("train/b").mkdir()
    with pytest.raises(DataError, match=r"b.txt: cannot be read .Is a directory., expected a file"):
        load_data(yolo.data)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_label_file_from_windows(yolo, encoding):
    yolo.labels("train/a").write_bytes("1\t.5 .5 .5 .5\r\n".encode(encoding))
    assert load_data(yolo.data).train[0][1]["labels"].tolist() == [1]


def test_a_list_from_windows(yolo):
    (yolo.folder / "list.txt").write_bytes("\ufeffimages\\train\\a.jpg\r\n".encode())
    yolo.content["train"] = "list.txt"
    assert names_of(load_data(yolo.data).train) == ["a.jpg"]


def test_an_image_in_both_lists_under_two_names_is_noted(yolo):
    yolo.content["val"] = "images/val/../train"
    (line,) = load_data(yolo.data).notes
    assert line.endswith("2 images are both trained on and tested (the first is a.jpg)")


def test_null_and_merge_keys_of_yaml(yolo):
    text = yolo.data
    yolo.file.write_text(
        "base: &base {path: ., test: images/val}\n<<: *base\ntrain: images/train\nval: null\n"
        "names: [cat, 'null']\n"
    )
    data = load_data(text)
    assert data.classes == ("cat", "null")
    assert names_of(data.test) == ["c.jpg"]
