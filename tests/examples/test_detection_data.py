"""Which data set the text of --data names."""

import re
import shutil

import pytest
from detection_data import load_data


@pytest.mark.parametrize(
    "text",
    ["", "digit", "digits:", "voc:", "voc", "coco:images", "coco:images:", "coco::a.json", "yolo:"],
)
def test_an_unknown_data_set_names_the_known_forms(text):
    forms = "digits, voc:DIR, coco:IMAGES:ANNOTATIONS.json or yolo:DATA.yaml"
    with pytest.raises(ValueError, match=f"data '{text}' is unknown; expected {re.escape(forms)}"):
        load_data(text)


@pytest.mark.parametrize("form", ["voc", "coco", "yolo"])
def test_a_path_may_hold_colons_and_blanks_and_start_at_home(request, form, tmp_path, monkeypatch):
    data_set = request.getfixturevalue(form)
    text = data_set.data
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.move(data_set.folder, tmp_path / "a: b:c")
    moved = text.replace(str(data_set.folder), "~/a: b:c")
    assert len(load_data(moved).train) >= 2
