"""COCO files."""

import json
import re

import pytest
import torch
from data_files import DataError
from detection_data import load_data


def test_splits_by_name_and_ignores_crowds(coco):
    data = load_data(coco.data)
    assert data.classes == ("three", "seven")
    assert (data.notes, data.changes) == ((), ())
    assert (len(data.train), len(data.test)) == (4, 1)
    assert torch.equal(data.test[0][1]["boxes"], torch.tensor([[4.0, 4, 9, 13]]) * 5)
    _, target = data.train[0]
    assert torch.equal(target["boxes"], torch.tensor([[1.0, 2, 11, 22], [0, 0, 50, 40]]) * 5)
    assert target["labels"].tolist() == [1, 0]
    assert target["ignore"].tolist() == [False, True]


@pytest.mark.parametrize(
    ("flags", "ignored"),
    [
        ({"ignore": 1}, True),
        ({"ignore": "1"}, True),
        ({"ignore": True, "iscrowd": 0}, True),
        ({"iscrowd": "1"}, True),
        ({"iscrowd": "0"}, False),
        ({"iscrowd": False, "ignore": 0}, False),
        ({"iscrowd": None}, False),
    ],
)
def test_ignore_and_iscrowd_as_numbers_texts_and_words(coco, flags, ignored):
    del coco.content["annotations"][0]["iscrowd"]
    coco.content["annotations"][0] |= flags
    coco.content["annotations"][1]["iscrowd"] = 0
    assert load_data(coco.data).train[0][1]["ignore"].tolist() == [ignored, False]


def test_numbers_and_ids_spelled_as_texts(coco):
    coco.content["annotations"][0] |= {"image_id": "11", "bbox": ["1", "2.0", 10, 20]}
    coco.content["images"][0]["id"] = 10.0
    target = load_data(coco.data).train[0][1]
    assert target["boxes"][0].tolist() == [5, 10, 55, 110]


def test_ids_that_are_texts(coco):
    for entry in (*coco.content["images"], *coco.content["annotations"]):
        for key in {"id", "image_id"} & entry.keys():
            entry[key] = f"image {entry[key]}"
    assert len(load_data(coco.data).train) == 4


def change(part, place, **values):
    def apply(content):
        content[part][place] |= values

    return apply


def without(part, place, name):
    def apply(content):
        del content[part][place][name]

    return apply


def replaced(part, value):
    def apply(content):
        content[part] = value

    return apply


def missing(part):
    def apply(content):
        del content[part]

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            without("annotations", 0, "bbox"),
            "annotations[0]: no bbox, expected one beside image_id",
        ),
        (
            change("annotations", 0, bbox=[]),
            "annotations[0]: bbox: [], expected [x, y, width, height]",
        ),
        (
            change("annotations", 0, bbox=[1, 2, 3]),
            "annotations[0]: bbox: [1, 2, 3], expected [x, ",
        ),
        (change("annotations", 0, bbox=None), "annotations[0]: bbox: None, expected [x, y, "),
        (change("annotations", 0, bbox=[1, 2, None, 4]), "bbox: None, expected a number"),
        (change("annotations", 0, bbox=[1, 2, "wide", 4]), "bbox: 'wide', expected a number"),
        (
            change("annotations", 0, image_id=99),
            "annotations[0]: image_id: 99, expected an id in im",
        ),
        (
            change("annotations", 0, image_id=[1]),
            "image_id: [1], expected a whole number or a text",
        ),
        (without("annotations", 0, "image_id"), "annotations[0]: no image_id, expected"),
        (
            change("annotations", 1, category_id=5),
            "annotations[1]: category_id: 5, expected an id in categories",
        ),
        (without("annotations", 0, "category_id"), "annotations[0]: no category_id, expected"),
        (
            change("annotations", 0, iscrowd="some"),
            "annotations[0]: iscrowd: 'some', expected 0 or",
        ),
        (change("annotations", 0, ignore=2), "annotations[0]: ignore: 2, expected 0 or 1"),
        (missing("categories"), "no categories, expected one beside images, annotations"),
        (replaced("categories", []), "categories: empty, expected at least one"),
        (replaced("categories", {"3": "cat"}), "categories: {'3': 'cat'}, expected a list"),
        (replaced("categories", ["cat"]), "categories[0]: 'cat', expected an object"),
        (without("categories", 1, "name"), "categories[1]: no name, expected"),
        (change("categories", 1, name=None), "categories[1]: name: None, expected a text"),
        (change("categories", 1, name=True), "categories[1]: name: True, expected a text"),
        (change("categories", 1, name=" "), "categories[1]: name: ' ', expected a text"),
        (
            change("categories", 0, name="three"),
            "categories[0]: name: 'three' is that of categories[1] too, expected another",
        ),
        (change("categories", 1, id=float("inf")), "categories[1]: id: inf, expected a whole"),
        (change("annotations", 0, image_id="9" * 5000), "image_id: '9999"),
        (change("annotations", 0, bbox=[True, 2, 3, 4]), "bbox: True, expected a number"),
        (change("annotations", 0, bbox="1 2 3 4"), "bbox: '1 2 3 4', expected [x, y, "),
        (
            change("categories", 1, id=7),
            "categories[1]: id: 7 is that of categories[0] too, expected another",
        ),
        (missing("images"), "no images, expected"),
        (replaced("images", []), "images: empty, expected at least one"),
        (missing("annotations"), "no annotations, expected"),
        (
            change("images", 3, id=11),
            "images[3]: id: 11 is that of images[1] too, expected another",
        ),
        (change("images", 3, id="11"), "images[3]: id: 11 is that of images[1] too"),
        (
            change("images", 3, file_name="./1.png"),
            "images[3]: file_name: 1.png is that of images[1] too, expected one id a file",
        ),
        (without("images", 3, "file_name"), "images[3]: no file_name, expected one beside id"),
        (without("images", 3, "id"), "images[3]: no id, expected one beside file_name"),
        (change("images", 3, file_name="lost.png"), "images[3]: file_name: 'lost.png' is not in"),
        (change("images", 3, file_name="a" * 5000), "images[3]: file_name: 'aaa"),
        (change("images", 3, file_name=3), "images[3]: file_name: 3, expected a file's name"),
        (change("images", 1, width=100, height=50), "images[1]: 100 x 50 pixels, expected the 64"),
        (change("images", 1, width=48, height=64), "48 x 64 pixels, expected the 64 x 48 of 1.png"),
        (change("images", 1, width="w", height=4), "images[1]: width: 'w', expected a number"),
    ],
)
def test_an_entry_that_cannot_be_understood_is_named(coco, damage, message):
    damage(coco.content)
    with pytest.raises(DataError, match=re.escape(message)) as error:
        load_data(coco.data)
    assert str(error.value).startswith(f"{coco.file}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [(64, 48), (0, 0), (None, None), ("64", 48.0)])
def test_a_size_that_fits_or_is_left_out(coco, size):
    coco.content["images"][1] |= {"width": size[0], "height": size[1]}
    assert len(load_data(coco.data).train) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 column 1: Expecting value, expected JSON"),
        ('{"images": [\n1,', "line 2 column 3: Expecting value, expected JSON"),
        ("[1, 2]", "[1, 2], expected an object with images, annotations and categories"),
        (f'{{"id": {"1" * 5000}}}', "cannot be read"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_a_file_that_is_no_coco_file(coco, text, message):
    data = coco.data
    coco.file.write_text(text)
    with pytest.raises(DataError, match=re.escape(f"boxes.json: {message}")):
        load_data(data)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_with_a_byte_order_mark(coco, encoding):
    data = coco.data
    coco.file.write_bytes(json.dumps(coco.content).encode(encoding))
    assert len(load_data(data).train) == 4


def test_file_names_with_blanks_folders_and_slashes_of_windows(coco):
    (coco.images / "sub folder").mkdir()
    for place, name in enumerate(("sub folder/a b.png", "sub folder\\1.png")):
        (coco.images / f"{place}.png").rename(coco.images / name.replace("\\", "/"))
        coco.content["images"][place]["file_name"] = name
    assert len(load_data(coco.data).train) == 4


def test_a_path_with_colons(coco, tmp_path):
    coco.images = coco.images.rename(tmp_path / "12:30:15 images")
    coco.file = tmp_path / "boxes:new.json"
    assert len(load_data(coco.data).train) == 4


def test_a_place_that_is_not_there(coco):
    with pytest.raises(DataError, match="lost.json: not there, expected a file"):
        load_data(f"coco:{coco.images}:{coco.folder}/lost.json")
    with pytest.raises(DataError, match="lost: not there, expected a folder"):
        load_data(coco.data.replace("images:", "lost:"))


@pytest.mark.parametrize("name", ["sub/../1.png", "link.png", "absolute"])
def test_a_file_under_two_names(coco, name):
    (coco.images / "sub").mkdir()
    (coco.images / "link.png").symlink_to("1.png")
    names = {"absolute": str(coco.images / "1.png")}
    coco.content["images"][3]["file_name"] = names.get(name, name)
    with pytest.raises(DataError, match=r"images\[3\]: file_name: .* is that of images\[1\] too"):
        load_data(coco.data)


def test_ids_with_gaps_below_zero_and_with_leading_zeros(coco):
    one, other = coco.content["categories"]
    one["id"], other["id"] = -5, 0
    for annotation, key in zip(coco.content["annotations"], (-5, 0, 0), strict=True):
        annotation["category_id"] = key
    coco.content["images"][3]["id"] = "011"  # not the number 11
    data = load_data(coco.data)
    assert data.classes == ("seven", "three")
    assert data.train[0][1]["labels"].tolist() == [0, 1]


def test_a_negative_width_is_a_bad_box(coco):
    coco.content["annotations"].append({"image_id": 11, "category_id": 3, "bbox": [9, 9, -5, 5]})
    (line,) = load_data(coco.data).changes
    assert line.endswith("annotations[3]: box (9, 9, 4, 14) dropped: no area")
