"""The data sets of the examples."""

import json

import detection_data
import numpy as np
import pytest
import torch
from detection_data import digit_scenes, load_data, stamp
from PIL import Image

VOC_OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>
<xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax>
</bndbox></object>"""


def write_image(path, width=64, height=48):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(width * height * 3, dtype=np.uint8).reshape(height, width, 3)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def voc(tmp_path):
    objects = {
        "a": [("cat", 0, (1, 2, 30, 40)), ("dog", 1, (5, 5, 20, 20)), ("cat", 0, (9, 9, 9, 30))],
        "b": [],
        "c": [("dog", 0, (0, 0, 64, 48))],
        "unused": [("dog", 0, (5, 8, 5, 8))],
    }
    for name, entries in objects.items():
        write_image(tmp_path / "JPEGImages" / f"{name}.jpg")
        body = "".join(VOC_OBJECT.format(name=n, difficult=d, box=b) for n, d, b in entries)
        annotation = tmp_path / "Annotations" / f"{name}.xml"
        annotation.parent.mkdir(exist_ok=True)
        annotation.write_text(f"<annotation>{body}</annotation>")
    splits = tmp_path / "ImageSets" / "Main"
    splits.mkdir(parents=True)
    (splits / "train.txt").write_text("a\nb\n")
    (splits / "test.txt").write_text("c\n")
    return tmp_path


@pytest.fixture
def coco(tmp_path):
    images = [{"id": 10 + i, "file_name": f"{i}.png"} for i in range(5)]
    for image in images:
        write_image(tmp_path / "images" / image["file_name"])
    annotations = [
        {"image_id": 11, "category_id": 7, "bbox": [1, 2, 10, 20], "iscrowd": 0},
        {"image_id": 11, "category_id": 3, "bbox": [0, 0, 50, 40], "iscrowd": 1},
        {"image_id": 10, "category_id": 3, "bbox": [4, 4, 0, 9]},
    ]
    categories = [{"id": 7, "name": "seven"}, {"id": 3, "name": "three"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    return f"coco:{tmp_path / 'images'}:{tmp_path / 'boxes.json'}"


def test_scenes_depend_on_the_seed_alone():
    one, same, other = (digit_scenes(seed=seed) for seed in (0, 0, 1))
    image, target = one.train[5]
    assert torch.equal(image, same.train[5][0])
    assert torch.equal(target["boxes"], same.train[5][1]["boxes"])
    assert not torch.equal(image, other.train[5][0])
    assert torch.equal(one.test[0][0], other.test[0][0]), "test scenes are the same for all"


def test_scenes_hold_one_to_six_digits_inside_the_image_and_apart():
    data = digit_scenes(seed=0)
    for index in range(40):
        image, target = data.train[index]
        boxes = target["boxes"]
        assert image.shape == (3, 128, 128)
        assert image.min() >= 0
        assert image.max() <= 1
        assert 1 <= len(boxes) <= 6
        assert boxes.min() >= 0
        assert boxes.max() <= 128
        assert target["labels"].max() < len(data.classes)
        shared = torch.minimum(boxes[:, None, 2:], boxes[:, 2:]) - torch.maximum(
            boxes[:, None, :2], boxes[:, :2]
        )
        overlapping = (shared > 0).all(-1).fill_diagonal_(False)
        assert not overlapping.any()


def test_boxes_are_tight_around_the_digits(monkeypatch):
    grey = np.full((128, 128, 3), 102 / 255, dtype=np.float32)
    monkeypatch.setattr(detection_data, "background", lambda rng, size, brightness: grey.copy())
    scenes = digit_scenes(seed=0).train
    for index in range(20):
        image, target = scenes[index]
        painted = ((image * 255 - 102).abs() > 0.5).any(dim=0)
        for x1, y1, x2, y2 in target["boxes"].int().tolist():
            inside = painted[y1:y2, x1:x2]
            edges = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
            assert all(edge.any() for edge in edges), "a side without a pixel of the digit"
            painted[y1:y2, x1:x2] = False
        assert not painted.any(), "a pixel of a digit outside its box"


@pytest.mark.parametrize("height", [18.0, 48.0])
def test_a_stamp_has_about_the_height_asked_for(height):
    shapes = [stamp(digit, height=height).shape for digit in digit_scenes(seed=0).test.digits]
    assert max(tall for tall, _ in shapes) <= 1.1 * height
    assert np.median([tall for tall, _ in shapes]) > 0.8 * height


def test_no_digit_of_the_test_scenes_is_trained_on():
    data = digit_scenes(seed=0)
    trained = {digit.tobytes() for digit in data.train.digits}
    assert not trained & {digit.tobytes() for digit in data.test.digits}
    assert len(data.train.digits) + len(data.test.digits) == 1797


def test_voc_reports_and_drops_the_box_without_area(voc):
    data = load_data(f"voc:{voc}")
    assert data.classes == ("cat", "dog")
    assert data.changes == (
        "Annotations/a.xml: box 2 (9, 9, 9, 30) dropped: no area",
        "Annotations/unused.xml: box 0 (5, 8, 5, 8) dropped: no area",
    )
    assert (len(data.train), len(data.test)) == (2, 1)
    image, target = data.train[0]
    assert image.shape == (3, 240, 320)
    expected = torch.tensor([[1.0, 2, 30, 40], [5, 5, 20, 20]]) * 5
    assert torch.equal(target["boxes"], expected)
    assert target["labels"].tolist() == [0, 1]
    assert target["ignore"].tolist() == [False, True]
    assert data.train[1][1]["boxes"].shape == (0, 4)


def test_voc_with_the_policy_error_names_the_file(voc):
    with pytest.raises(ValueError, match=r"Annotations/a.xml: .*\[2\].*no area"):
        load_data(f"voc:{voc}", policy="error")


def test_voc_with_the_policy_clip_cuts_at_the_edge(voc):
    path = voc / "Annotations" / "c.xml"
    path.write_text(path.read_text().replace("<xmax>64", "<xmax>70"))
    data = load_data(f"voc:{voc}", policy="clip")
    assert "Annotations/c.xml: box 0 (0, 0, 70, 48) clipped: over the edge" in data.changes
    assert torch.equal(data.test[0][1]["boxes"], torch.tensor([[0.0, 0, 320, 240]]))


def test_voc_without_an_annotation_names_it(voc):
    (voc / "ImageSets" / "Main" / "train.txt").write_text("a\nlost\n")
    with pytest.raises(FileNotFoundError, match=r"no .*Annotations/lost.xml"):
        load_data(f"voc:{voc}")


def test_coco_splits_by_name_and_ignores_crowds(coco):
    data = load_data(coco)
    assert data.classes == ("three", "seven")
    assert data.changes == ("0.png: box 0 (4, 4, 4, 13) dropped: no area",)
    assert (len(data.train), len(data.test)) == (4, 1)
    assert data.test[0][1]["boxes"].shape == (0, 4)
    _, target = data.train[0]
    assert torch.equal(target["boxes"], torch.tensor([[1.0, 2, 11, 22], [0, 0, 50, 40]]) * 5)
    assert target["labels"].tolist() == [1, 0]
    assert target["ignore"].tolist() == [False, True]


@pytest.mark.parametrize("text", ["", "digit", "voc:", "coco:images", "voc"])
def test_an_unknown_data_set_names_the_known_forms(text):
    with pytest.raises(ValueError, match="expected digits, voc:DIR or coco:IMAGES:ANNOTATIONS.jso"):
        load_data(text)


def test_a_missing_folder_names_the_file_it_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no .*ImageSets/Main/train.txt"):
        load_data(f"voc:{tmp_path}")
