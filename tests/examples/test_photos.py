"""What photos of all formats have in common."""

import numpy as np
import pytest
from data_files import DataError
from detection_data import load_data
from PIL import Image

CAT = ("cat", (1, 2, 30, 40))
FLAT = ("cat", (9, 9, 9, 30))


def size(width, height):
    return f"<size><width>{width}</width><height>{height}</height></size>"


def add_turned(voc, extra, box):
    """An image with one white object: stored 64 x 48, shown 48 x 64, at (8, 4, 28, 34)."""
    voc.add("a", voc.object("cat", box), extra=extra)
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[20:40, 4:34] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(voc.image("a", ".png"), exif=exif)
    voc.image("a").unlink()


@pytest.mark.parametrize(
    ("extra", "box"),
    [
        pytest.param(size(48, 64), (8, 4, 28, 34), id="labelled as shown"),
        pytest.param(size(64, 48), (4, 20, 34, 40), id="labelled as stored: the size says so"),
        pytest.param("", (8, 4, 28, 34), id="no size: as shown"),
        pytest.param(size(0, 0), (8, 4, 28, 34), id="a size of 0 says nothing"),
    ],
)
def test_boxes_stay_on_their_object_where_exif_turns_the_photo(voc, extra, box):
    add_turned(voc, extra, box)
    image, target = load_data(voc.data).train[0]
    assert image.shape == (3, 320, 240)
    assert target["boxes"].tolist() == [[40, 20, 140, 170]]
    x1, y1, x2, y2 = target["boxes"][0].int().tolist()
    assert image[:, y1 + 4 : y2 - 4, x1 + 4 : x2 - 4].min() == 1
    assert image.mean().item() == pytest.approx(100 * 150 / (320 * 240), rel=0.02)


def test_a_size_unlike_the_files_is_refused(voc):
    voc.add("a", voc.object(*CAT), extra=size(128, 96))
    with pytest.raises(
        DataError, match=r"a.xml: size: 128 x 96 pixels, expected the 64 x 48 of a.jpg"
    ):
        load_data(voc.data)


def test_boxes_that_are_fractions_are_refused(voc, coco):
    voc.add("a", voc.object("cat", (0.1, 0.2, 0.5, 0.8)))
    message = r"a.xml: object\[0\]: box \(0.1, 0.2, 0.5, 0.8\): fractions of the image, expected pi"
    with pytest.raises(DataError, match=message):
        load_data(voc.data)
    coco.content["annotations"][2]["bbox"] = [0.1, 0.2, 0.5, 0.75]
    with pytest.raises(DataError, match=r"boxes.json: annotations\[2\]: box .*: fractions of the"):
        load_data(coco.data)


def test_a_single_box_within_the_first_pixel_is_told(voc):
    voc.add("a", voc.object(*CAT), voc.object("cat", (0, 0, 0.5, 0.75)))
    data = load_data(voc.data)
    assert len(data.train[0][1]["boxes"]) == 2
    (line,) = data.changes
    assert line.endswith(
        "object[1]: box (0, 0, 0.5, 0.75) kept: within the first pixel; a fraction of the image?"
    )


def test_a_box_of_the_first_pixel_is_no_fraction(voc):
    voc.add("a", voc.object("cat", (0, 0, 1, 1)))
    assert load_data(voc.data).changes == ()


def test_boxes_without_area_are_reported_and_dropped(voc):
    voc.add("a", voc.object(*CAT), voc.object(*FLAT))
    voc.add("unused", voc.object(*FLAT))
    data = load_data(voc.data)
    assert data.changes == (
        f"{voc.annotation('a')}: object[1]: box (9, 9, 9, 30) dropped: no area",
        f"{voc.annotation('unused')}: object[0]: box (9, 9, 9, 30) dropped: no area",
    )
    assert len(data.train[0][1]["boxes"]) == 1


def test_the_policy_error_names_file_and_entry(voc):
    voc.add("a", voc.object(*CAT), voc.object(*FLAT))
    message = r"Annotations/a.xml: object\[1\]: box \(9, 9, 9, 30\): no area, expected an area in"
    with pytest.raises(DataError, match=message):
        load_data(voc.data, policy="error")


def test_the_policy_clip_cuts_at_the_edge(voc):
    voc.add("c", voc.object("dog", (0, 0, 70, 48)))
    data = load_data(voc.data, policy="clip")
    (line,) = data.changes
    assert line.endswith("c.xml: object[0]: box (0, 0, 70, 48) clipped: over the edge")
    assert data.test[0][1]["boxes"].tolist() == [[0, 0, 320, 240]]


def test_a_damaged_image_is_named_before_the_training(voc):
    content = voc.image("b").read_bytes()
    voc.image("b").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"JPEGImages/b.jpg: cannot be read"):
        load_data(voc.data)


def test_16_bit_grey_is_scaled(voc):
    values = np.full((48, 64), 32896, np.uint16)
    voc.image("a").unlink()
    Image.fromarray(values).save(voc.image("a", ".png"))
    image, _ = load_data(voc.data).train[0]
    assert image.unique().tolist() == pytest.approx([128 / 255])


def test_one_image_is_not_enough(coco):
    coco.content |= {"images": coco.content["images"][:1], "annotations": []}
    message = "boxes.json: 1 image, expected at least 2: one to train on and one to test"
    with pytest.raises(DataError, match=message):
        load_data(coco.data)


def test_an_empty_list_is_not_enough(voc):
    voc.list("train", "\n")
    with pytest.raises(DataError, match="voc: 1 image, expected at least 2"):
        load_data(voc.data)
    voc.list("test", "a\nc\n")
    with pytest.raises(DataError, match="voc: no image to train on, expected at least one"):
        load_data(voc.data)


@pytest.mark.parametrize(
    "objects",
    [
        pytest.param([], id="no object"),
        pytest.param([("cat", (1, 2, 30, 40), "1")], id="only one to ignore"),
        pytest.param([FLAT], id="only one without area"),
    ],
)
def test_nothing_to_learn(voc, objects):
    voc.add("a", *[voc.object(*one) for one in objects])
    with pytest.raises(DataError, match="voc: no object in the images to train on, expected at le"):
        load_data(voc.data)


def test_nothing_to_measure_is_noted(voc):
    voc.add("c")
    (line,) = load_data(voc.data).notes
    assert line == f"{voc.folder}: no object in the images to test: AP will be -1, unknown"


def test_the_reason_why_there_is_nothing_to_learn(voc):
    voc.add("a", voc.object(*FLAT))
    message = r"at least one that counts; .*a.xml: object\[0\]: box .* dropped: no area$"
    with pytest.raises(DataError, match=message):
        load_data(voc.data)


@pytest.mark.parametrize("policy", ["drop", "error"])
def test_boxes_over_the_edge_are_counted(voc, coco, policy):
    voc.add("a", voc.object(*CAT), voc.object("cat", (-8, 2, 30, 40)))
    voc.add("c", voc.object("dog", (0, 0, 64.9, 48)))
    data = load_data(voc.data, policy=policy)
    (line,) = data.notes
    assert line.startswith(f"{voc.folder}: 1 box reaches over the edge (first object[1] of a.xml),")
    assert data.train[0][1]["boxes"][1].tolist() == [-40, 10, 150, 200]

    for annotation in coco.content["annotations"]:
        annotation["bbox"] = [40, 30, 60, 45]  # meant as two corners
    (line,) = load_data(coco.data, policy=policy).notes
    assert "3 boxes reach over the edge (first annotations[2] of boxes.json), as boxes of" in line


@pytest.mark.parametrize("policy", ["drop", "clip", "error"])
@pytest.mark.parametrize("side", ["nan", "inf", "-inf", "1e999"])
def test_boxes_that_are_not_finite(voc, side, policy):
    voc.add("a", voc.object(*CAT), voc.object("cat", (1, 2, side, 40)))
    if policy == "error":
        with pytest.raises(DataError, match=r"a.xml: object\[1\]: box .*: not finite, expected"):
            load_data(voc.data, policy=policy)
    else:
        (line,) = load_data(voc.data, policy=policy).changes
        assert line.endswith("dropped: not finite")


def test_fractions_that_are_rounded_over_the_edge_are_refused(coco):
    coco.content["annotations"][2]["bbox"] = [0.3, -1e-9, 0.7000001, 0.9]
    with pytest.raises(DataError, match=r"annotations\[2\]: box .*: fractions of the image"):
        load_data(coco.data)
