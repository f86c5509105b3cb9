"""Pascal VOC folders."""

import pytest
import torch
from data_files import DataError
from detection_data import load_data

CAT = ("cat", (1, 2, 30, 40))


def boxes_of(images):
    return [target["boxes"].tolist() for _, target in (images[i] for i in range(len(images)))]


def names_of(images):
    return [photo.path.name for photo in images.photos]


def test_boxes_classes_and_difficult_objects(voc):
    data = load_data(voc.data)
    assert data.classes == ("cat", "dog")
    assert (data.notes, data.changes) == ((), ())
    assert (names_of(data.train), names_of(data.test)) == (["a.jpg", "b.jpg"], ["c.jpg"])
    image, target = data.train[0]
    assert image.shape == (3, 240, 320)
    assert torch.equal(target["boxes"], torch.tensor([[1.0, 2, 30, 40], [5, 5, 20, 20]]) * 5)
    assert target["labels"].tolist() == [0, 1]
    assert target["ignore"].tolist() == [False, True]
    assert data.train[1][1]["boxes"].shape == (0, 4)


def test_a_name_with_blanks(voc):
    voc.add("two  words 1", voc.object(*CAT))
    voc.list("train", "two  words 1\n")
    assert names_of(load_data(voc.data).train) == ["two  words 1.jpg"]


@pytest.mark.parametrize("line", ["a  1", "a -1", "a 0", "a\t1", "a.jpg", "a.jpg 1", "a", "./a"])
def test_a_list_with_flags_or_suffixes(voc, line):
    voc.list("train", f"{line}\n\n")
    assert names_of(load_data(voc.data).train) == ["a.jpg"]


def test_a_list_with_a_byte_order_mark(voc):
    voc.list("train", "\ufeffa\r\nb\r\n")
    assert names_of(load_data(voc.data).train) == ["a.jpg", "b.jpg"]


def test_a_line_that_names_nothing(voc):
    voc.list("train", "a\nlost\n")
    with pytest.raises(
        DataError, match=r"train.txt: line 2: 'lost' is neither in JPEGImages nor in"
    ):
        load_data(voc.data)


def test_an_image_that_is_listed_twice_or_in_both_lists_is_noted(voc):
    voc.list("train", "a\nc\na\n")
    data = load_data(voc.data)
    assert names_of(data.train) == ["a.jpg", "c.jpg"]
    assert data.notes == (
        f"{voc.folder}: 1 repeated entry left out",
        f"{voc.folder}: 1 image is both trained on and tested (c.jpg)",
    )


@pytest.mark.parametrize("suffix", [".png", ".jpeg", ".JPG", ".bmp", ".webp"])
def test_other_images_than_jpg(voc, suffix):
    voc.image("a").unlink()
    voc.add("a", voc.object(*CAT), suffix=suffix)
    assert names_of(load_data(voc.data).train)[0] == f"a{suffix}"


def test_two_images_of_one_name_are_told_apart_by_the_annotation(voc):
    voc.add("a", voc.object(*CAT), suffix=".png")
    with pytest.raises(DataError, match=r"a.jpg: shares its name with a.png, expected one file"):
        load_data(voc.data)
    voc.add("a", voc.object(*CAT), suffix=".png", extra="<filename>a.png</filename>")
    assert names_of(load_data(voc.data).train)[0] == "a.png"


def test_an_image_by_the_filename_of_its_annotation(voc):
    voc.image("a").rename(voc.image("other"))
    voc.add("a", voc.object(*CAT), extra="<filename>other.jpg</filename>")
    voc.image("a").unlink()
    assert names_of(load_data(voc.data).train)[0] == "other.jpg"


def test_two_annotations_for_one_image(voc):
    for name in ("x", "y"):
        voc.add(name, extra="<filename>other.jpg</filename>")
        voc.image(name).rename(voc.image("other"))
    with pytest.raises(DataError, match=r"y.xml: filename: other.jpg is that of x.xml too"):
        load_data(voc.data)


def test_an_image_without_an_annotation_has_no_object(voc):
    voc.annotation("b").unlink()
    data = load_data(voc.data)
    assert names_of(data.train) == ["a.jpg", "b.jpg"]
    assert boxes_of(data.train)[1] == []
    (line,) = data.notes
    assert line.endswith("1 image without an annotation is read as one without objects (b.jpg)")


def test_orphans_are_counted_and_left_out(voc):
    voc.image("unused").unlink()
    for name in ("x", "y"):
        voc.add(name)
        voc.annotation(name).unlink()
    images, annotations = load_data(voc.data).notes
    assert images.endswith(
        "2 images with neither an annotation nor a line in a list are left out (the first is x.jpg)"
    )
    assert annotations.endswith("1 annotation without an image is left out (unused.xml)")


def test_a_listed_annotation_without_an_image(voc):
    voc.image("a").unlink()
    with pytest.raises(DataError, match=r"train.txt: line 1: 'a' has a.xml, expected an image in"):
        load_data(voc.data)


def test_hidden_files_of_a_mac_are_left_out(voc):
    voc.annotation("._a").write_bytes(b"\0\5\26\7")
    voc.image("._a").write_bytes(b"\0\5\26\7")
    assert load_data(voc.data).notes == ()


@pytest.mark.parametrize(
    ("lists", "train", "test", "words"),
    [
        pytest.param({"train": "a", "test": "c"}, "a", "c", [], id="train and test"),
        pytest.param({"train": "a", "val": "b", "test": "c"}, "a", "c", [], id="all three"),
        pytest.param(
            {"train": "a", "val": "c"}, "a", "c", ["no test.txt: val.txt is"], id="no test list"
        ),
        pytest.param(
            {"trainval": "abc", "val": "c"},
            "ab",
            "c",
            ["no train.txt: what trainval.txt has beside val.txt", "no test.txt: val.txt is"],
            id="what is tested is not trained on",
        ),
        pytest.param(
            {"test": "c"}, "abu", "c", ["no train.txt: what annotations"], id="only a test list"
        ),
        pytest.param(
            {"train": "abcu"},
            "bcu",
            "a",
            ["no test.txt: every fifth image of train.txt"],
            id="only a list to train on",
        ),
        pytest.param(
            {}, "bcu", "a", ["no test.txt: every fifth image with an annotation"], id="no list"
        ),
    ],
)
def test_lists(voc, lists, train, test, words):
    for name in ("train", "test"):
        (voc.folder / "ImageSets" / "Main" / f"{name}.txt").unlink()
    voc.annotation("b").write_text(f"<annotation>{voc.object(*CAT)}</annotation>")
    for name, letters in lists.items():
        voc.list(name, "\n".join({"u": "unused"}.get(letter, letter) for letter in letters))
    data = load_data(voc.data)
    assert [name[0] for name in names_of(data.train)] == list(train)
    assert [name[0] for name in names_of(data.test)] == list(test)
    assert len(data.notes) == len(words)
    assert all(word in line for word, line in zip(words, data.notes, strict=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "empty, expected an <annotation>", id="empty"),
        pytest.param(" \n", "empty, expected", id="blank"),
        pytest.param("<annotation><object><name>&x;", "not XML .undefined entity", id="entity"),
        pytest.param("<annotation>", "not XML .no element found.*, expected", id="cut off"),
        pytest.param("a,b", "not XML", id="no XML"),
        pytest.param("<svg/>", "<svg>, expected an <annotation>", id="other XML"),
        pytest.param(
            "<?xml version='1.0' encoding='klingon'?><annotation/>", "not XML", id="encoding"
        ),
    ],
)
def test_an_annotation_that_is_none(voc, text, message):
    voc.annotation("a").write_text(text)
    with pytest.raises(DataError, match=f"Annotations/a.xml: {message}"):
        load_data(voc.data)


def test_an_annotation_with_a_byte_order_mark_and_names_of_any_letters(voc):
    text = f"<annotation>{voc.object(' Müller ', (1, 2, 30, 40))}</annotation>"
    voc.annotation("a").write_bytes(text.encode("utf-8-sig"))
    assert load_data(voc.data).classes == ("Müller", "dog")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<xmin>1</xmin>", "<xmin>(88, 100)</xmin>", r"xmin: '\(88, 100\)', expected a number"),
        ("<xmin>1</xmin>", "", "xmin: None, expected a number"),
        ("<xmin>1</xmin>", "<xmin/>", "xmin: '', expected a number"),
        ("bndbox>", "polygon>", "no bndbox, expected xmin, ymin, xmax and ymax in one"),
        ("<name>cat</name>", "", "no name, expected that of its class"),
        ("<name>cat</name>", "<name> </name>", "no name, expected that of its class"),
        (">0</difficult>", ">hard</difficult>", "difficult: 'hard', expected 0 or 1"),
    ],
)
def test_an_object_that_cannot_be_understood(voc, old, new, message):
    text = voc.annotation("a").read_text()
    assert old in text
    voc.annotation("a").write_text(text.replace(old, new))
    with pytest.raises(DataError, match=rf"Annotations/a.xml: object\[0\]: {message}"):
        load_data(voc.data)


def test_an_object_without_a_word_on_difficult_counts(voc):
    text = voc.annotation("a").read_text()
    voc.annotation("a").write_text(text.replace("<difficult>1</difficult>", ""))
    assert load_data(voc.data).train[0][1]["ignore"].tolist() == [False, False]


@pytest.mark.parametrize("missing", ["", "JPEGImages", "Annotations"])
def test_a_missing_folder_is_named(voc, missing):
    (voc.folder / missing).rename(voc.folder.parent / "away")
    with pytest.raises(DataError, match=f"voc/?{missing}: not there, expected a folder"):
        load_data(voc.data)


def test_an_object_to_ignore(voc):
    text = (
        voc.annotation("a").read_text().replace("<difficult>1<", "<ignore>1</ignore><difficult>0<")
    )
    voc.annotation("a").write_text(text)
    assert load_data(voc.data).train[0][1]["ignore"].tolist() == [False, True]


@pytest.mark.parametrize("side", ["", " ", "0"])
def test_a_size_that_is_left_empty(voc, side):
    extra = f"<size><width>{side}</width><height>{side}</height></size>"
    voc.add("a", voc.object(*CAT), extra=extra)
    assert names_of(load_data(voc.data).train)[0] == "a.jpg"


def test_a_file_where_a_folder_is_expected(voc):
    with pytest.raises(DataError, match=r"a.xml: a file, expected a folder"):
        load_data(f"voc:{voc.annotation('a')}")
