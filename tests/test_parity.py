"""Parity: the shipped configs equal the losses that they reproduce, and the command can say no."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from parity import LIMIT, ORIGINALS, Golden, compare, main
from parity.chance import EQUALLY_NEAR, NOT_ALIGNED, Call, Chance
from parity.compare import CONFIGS, relative_difference
from parity.page import PAGE, page, without_figures

import detloss

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
FILES = sorted(GOLDEN.rglob("*.npz"))
GFL = GOLDEN / "mmdet" / "gfl_seed0.npz"
YOLOV8 = GOLDEN / "yolo" / "yolov8_seed0.npz"
TIES = GOLDEN / "mmdet" / "retinanet_ties_seed0.npz"


def original_of(golden):
    return ORIGINALS[golden.project, golden.name]


def changed(file, folder, *, name=None, **changes):
    """A copy of `file` in `folder`; each change makes a new array of an old one, or drops it."""
    with np.load(file) as arrays:
        values = {key: arrays[key].copy() for key in arrays.files}
    for key, change in changes.items():
        if change is None:
            del values[key]
        else:
            values[key] = change(values[key])
    copy = folder / (name or file.name)
    np.savez(copy, **values)
    return copy


def times(factor):
    return lambda array: array * factor


def moved(share):
    """The first entry moved by that share of the largest."""

    def move(array):
        array.flat[0] += share * np.abs(array).max()
        return array

    return move


def first(condition, value):
    """The first entry that meets the condition set to a value."""

    def assign(array):
        array[np.flatnonzero(condition(array))[0]] = value
        return array

    return assign


def run(capsys, *arguments):
    """Exit status, rows and summary of the command."""
    status = main([str(argument) for argument in arguments])
    *rows, summary = capsys.readouterr().out.splitlines()
    return status, rows, summary


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_shipped_config_equals_its_original(file):
    golden = Golden.read(file)
    found = compare(golden, original_of(golden))
    assert found.equal, found
    assert (found.differing is None) == original_of(golden).given
    assert not found.differing, "an original that leaves matches to chance comes with another seed"


def test_given_matches_come_with_the_pairs_that_a_file_records():
    golden = Golden.read(GOLDEN / "mmdet" / "yolof_seed0.npz")
    found = compare(golden, replace(original_of(golden), given=True))
    assert found.equal, found
    predicted = torch.cat([golden["anchors"][None]] * golden.images)
    pairs = [match.pairs for match in golden.with_pairs(golden.matches(), predicted)]
    assert [len(of_image) for of_image in pairs] == [0, 7, 9]


def test_the_golden_files_are_small_and_each_original_has_one():
    assert sum(file.stat().st_size for file in FILES) <= 3_000_000
    found = {(golden.project, golden.name) for golden in map(Golden.read, FILES)}
    assert found == set(ORIGINALS)


def test_the_page_of_detectors_is_what_the_golden_files_say():
    assert without_figures(PAGE.read_text()) == without_figures(page()), (
        "run python -m tests.parity.page"
    )


def test_the_row_names_figures_matches_and_options(tmp_path, capsys):
    changed(GFL, tmp_path, name="gfl_seed7.npz")
    status, (row,), summary = run(capsys, tmp_path)
    assert status == 0
    number = r"\d\.\de[-+]\d\d"
    assert row.split()[:4] == ["gfl", "seed", "7", "equal"]
    assert re.search(
        rf"terms cls {number}, bbox {number}, dfl {number}, total {number}; "
        rf"gradients cls_scores {number}, bbox_preds {number}; matches equal; "
        r"gfl.yaml with normalizer.per: images, coder.margin: 0.1; "
        r"convention matcher.convention: mmdet",
        row,
    )
    assert summary == (
        "1 files: 1 equal, 0 different, 0 failed, 0 without a config; equal is within 1e-05"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"loss_cls": times(1 + 2 * LIMIT)}, "cls 2.0e-05", id="a term"),
        pytest.param({"loss_total": times(1 - 2 * LIMIT)}, "total 2.0e-05", id="the total"),
        pytest.param({"loss_dfl": times(np.nan)}, "dfl nan", id="a term that is NaN"),
        pytest.param({"loss_dfl": times(0)}, "dfl inf", id="a term that is 0"),
        pytest.param({"grad_cls_scores": moved(2 * LIMIT)}, "cls_scores 2.0e-05", id="a gradient"),
        pytest.param({"grad_bbox_preds": moved(np.nan)}, "bbox_preds nan", id="a gradient of NaN"),
        pytest.param(
            {"match_1": first(lambda m: m >= 0, -1)}, "differ: 1 anchors", id="a lost positive"
        ),
        pytest.param(
            {"match_1": first(lambda m: m == 0, 1)}, "differ: 1 anchors", id="another object"
        ),
        pytest.param(
            {"match_0": first(lambda m: m == -1, -2)}, "differ: 1 anchors", id="ignored instead"
        ),
    ],
)
def test_a_difference_is_a_row_and_exit_status_1(changes, words, tmp_path, capsys):
    changed(GFL, tmp_path, **changes)
    status, (row,), summary = run(capsys, tmp_path)
    assert status == 1
    assert row.split()[3] == "different"
    assert words in row
    assert "1 different" in summary


def test_half_the_limit_is_equal(tmp_path, capsys):
    changed(
        GFL,
        tmp_path,
        loss_cls=times(1 + LIMIT / 2),
        grad_cls_scores=moved(LIMIT / 2),
    )
    assert run(capsys, tmp_path)[0] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"box": [{"type": "giou", "weight": 2.001}]}, "bbox", id="a weight"),
        pytest.param({"normalizer": {"type": "positives"}}, "cls", id="a divisor"),
        pytest.param({"matcher": {"type": "atss", "topk": 8, "scale": 8}}, "", id="a matcher"),
    ],
)
def test_a_config_that_is_not_the_original_differs(change, words, tmp_path):
    golden = Golden.read(GFL)
    config = yaml.safe_load((CONFIGS / "gfl.yaml").read_text())
    if "box" in change:
        change = {"box": [config["box"][0] | change["box"][0], config["box"][1]]}
    (tmp_path / "gfl.yaml").write_text(yaml.safe_dump(config | change))
    found = compare(golden, original_of(golden), configs=tmp_path)
    assert not found.equal
    assert found.terms[words] > LIMIT if words else found.differing


def test_a_convention_is_set_in_the_config_and_names_an_option_of_it():
    golden = Golden.read(GFL)
    fewer = replace(original_of(golden), convention={"matcher.topk": 3})
    assert compare(golden, fewer).differing
    misspelt = replace(original_of(golden), convention={"matcher.tokp": 3})
    with pytest.raises(ValueError, match="the config must have 'matcher.tokp'"):
        compare(golden, misspelt)


def test_matches_that_are_given_are_not_compared(tmp_path, capsys):
    status, (row,), _ = run(capsys, TIES.parent, "--only", "retinanet_ties")
    assert status == 0
    assert "; matches given; retinanet_mmdet.yaml" in row
    changed(TIES, tmp_path, match_1=first(lambda match: match >= 0, -1))
    status, (row,), _ = run(capsys, tmp_path)
    assert status == 1  # but they are what the losses are computed from
    assert "; matches given; " in row


@pytest.mark.parametrize("by_chance", [True, False])
def test_what_an_original_leaves_to_chance_is_compared_with_its_matches(tmp_path, by_chance):
    """A positive that the file has lost: its losses are of other matches than it says."""
    golden = Golden.read(changed(YOLOV8, tmp_path, match_1=first(lambda match: match >= 0, -1)))
    left = torch.zeros(3, len(golden["match_0"]), dtype=torch.bool)
    left[1, np.flatnonzero(Golden.read(YOLOV8)["match_1"] >= 0)[0]] = by_chance
    chance = Chance("a sort", lambda call: left)
    found = compare(golden, replace(original_of(golden), chance=chance))
    assert (found.differing, found.equal) == (1, False)
    assert found.reason == ("a sort" if by_chance else "")
    assert (found.terms["box"] > LIMIT) == by_chance, "with the file's matches"


def test_a_reason_that_an_anchor_does_not_have_is_none(tmp_path, capsys):
    changed(YOLOV8, tmp_path, match_1=first(lambda match: match >= 0, -1))
    status, (row,), _ = run(capsys, tmp_path)
    assert status == 1
    assert "matches differ: 1 anchors; yolov8.yaml" in row


POINTS = torch.tensor([[8.0 * place, 0, 8 * place + 8, 8] for place in range(4)])


def call_of(matcher, regression, boxes):
    """Of one image with one object of class 0, and predictions that are boxes already."""
    criterion = detloss.build(
        {
            "matcher": matcher,
            "coder": {"type": "boxes"},
            "classification": {"type": "sigmoid_focal"},
            "box": {"type": "giou"},
        }
    )
    predictions = {"class_logits": torch.zeros(1, 4, 1), "box_regression": regression[None]}
    targets = [{"boxes": torch.tensor(boxes), "labels": torch.zeros(len(boxes), dtype=torch.long)}]
    return Call(criterion, predictions, targets, POINTS)


@pytest.mark.parametrize(
    ("box", "topk", "left"),
    [
        pytest.param([0.0, 0, 32, 8], 3, [0, 0, 0, 0], id="three of four overlap it with theirs"),
        pytest.param([0.0, 0, 32, 8], 4, [0, 0, 0, 1], id="four taken: the last has alignment 0"),
        pytest.param([0.0, 0, 24, 8], 4, [0, 0, 0, 0], id="no more than those three are inside"),
    ],
)
def test_which_anchors_an_object_takes_without_alignment(box, topk, left):
    predicted = torch.cat([POINTS[:3], POINTS[3:] + 50])
    matcher = {"type": "task_aligned", "topk": topk, "convention": "ultralytics"}
    assert NOT_ALIGNED.anchors(call_of(matcher, predicted, [box])).int().tolist() == [left]


@pytest.mark.parametrize(
    ("box", "topk", "tied"),
    [
        pytest.param([4.0, 0, 12, 8], 1, [1, 1, 0, 0], id="4, 4, 12 and 20: one is taken"),
        pytest.param([3.0, 0, 11, 8], 1, [0, 0, 0, 0], id="3 and 5"),
        pytest.param([11.0, 0, 19, 8], 2, [0, 0, 0, 0], id="11, 3, 5 and 13"),
        pytest.param([8.0, 0, 16, 8], 2, [1, 0, 1, 0], id="8, 0, 8 and 16: one is the second"),
        pytest.param([8.0, 0, 16, 8], 1, [0, 0, 0, 0], id="the same, of which neither is taken"),
    ],
)
def test_which_anchors_are_equally_near(box, topk, tied):
    call = call_of({"type": "uniform", "topk": topk}, POINTS, [box])
    assert EQUALLY_NEAR.anchors(call).int().tolist() == [tied]


def test_a_name_without_a_config_is_no_error(tmp_path, capsys):
    changed(GFL, tmp_path, name="gfl_of_the_future_seed0.npz")
    status, (row,), summary = run(capsys, tmp_path)
    assert (status, row) == (0, "gfl_of_the_future  seed 0   no config")
    assert "1 without a config" in summary


def test_a_name_is_that_of_its_project(tmp_path, capsys):
    changed(
        GFL, tmp_path, meta=lambda meta: np.array(str(meta).replace('"mmdet 3.3.0', '"elsewhere'))
    )
    status, (row,), _ = run(capsys, tmp_path)
    assert status == 0
    assert "no config" in row


def unreadable(kind, folder):
    file = folder / "gfl_seed0.npz"
    if kind == "cut":
        file.write_bytes(GFL.read_bytes()[:5000])
    elif kind == "text":
        file.write_text("no archive")
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "name":
        changed(GFL, folder, name="gfl.npz")
    elif kind == "meta":
        changed(GFL, folder, meta=None)
    elif kind == "pickle":
        changed(GFL, folder, loss_cls=lambda loss: np.array({"loss": loss}, dtype=object))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cut", "BadZipFile"),
        ("text", "pickle"),
        ("empty", "No data left"),
        ("name", "the file must be called NAME_seedN.npz, got 'gfl.npz'"),
        ("meta", "the file must have an entry 'meta', got none"),
        ("pickle", "Object arrays cannot be loaded"),
    ],
)
def test_a_file_that_cannot_be_read_gives_its_reason(kind, reason, tmp_path, capsys):
    unreadable(kind, tmp_path)
    changed(GFL, tmp_path, name="gfl_seed9.npz")
    status, rows, summary = run(capsys, tmp_path)
    assert status == 1
    (failed,) = [row for row in rows if "not read" in row]
    assert reason in failed
    assert summary.startswith("2 files: 1 equal, 0 different, 1 failed")  # the others are compared


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pred_cls_scores": None}, "must have a prediction 'cls_scores', got ['bbox_preds']"),
        ({"loss_dfl": None}, "losses must be ['bbox', 'cls', 'dfl', 'total'], got"),
        ({"grad_bbox_preds": None}, "must have an array 'grad_bbox_preds', got none"),
        ({"match_2": None}, "must have an array 'match_2', got none"),
        ({"grad_bbox_preds": lambda array: array[:1]}, "shapes must agree, got (3, 341, 68) and"),
    ],
    ids=["prediction", "loss", "gradient", "match", "shape"],
)
def test_a_file_without_what_is_compared_fails(changes, reason, tmp_path, capsys):
    changed(GFL, tmp_path, **changes)
    status, (row,), _ = run(capsys, tmp_path)
    assert status == 1
    assert "not compared, gfl.yaml: ValueError: " in row
    assert reason in row


def test_a_folder_without_files_is_an_error(tmp_path, capsys):
    status, (row,), _ = run(capsys, tmp_path / "nowhere")
    assert (status, row) == (1, f"{tmp_path / 'nowhere'}: no .npz file in this folder")


def test_only_takes_names_and_folders_are_read_deep(capsys):
    status, rows, _ = run(capsys, GOLDEN, "--only", "gfl,tv_fcos")
    assert status == 0
    assert [row.split()[0] for row in rows] == ["gfl", "gfl", "tv_fcos", "tv_fcos"]


def test_only_with_a_name_that_no_file_has_is_an_error(capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(GOLDEN), "--only", "glf"])
    assert stopped.value.code == 2
    assert "no file is called glf" in capsys.readouterr().err


def test_the_command_runs_from_the_repository(tmp_path):
    changed(GFL, tmp_path, loss_cls=times(2))
    command = [sys.executable, "-m", "tests.parity", str(tmp_path), str(GOLDEN), "--only", "gfl"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1].startswith("3 files: 2 equal, 1 different")


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        pytest.param([1.0, 2.0], [1.0, 2.0], 0.0, id="equal"),
        pytest.param([1.0, 2.5], [1.0, 2.0], 0.25, id="relative to the largest, not to its own"),
        pytest.param([1.5, 2.0], [1.0, -2.0], 2.0, id="in absolute value"),
        pytest.param([0.0, 0.0], [0.0, 0.0], 0.0, id="nothing and nothing"),
        pytest.param([0.0, 1e-9], [0.0, 0.0], float("inf"), id="something for nothing"),
    ],
)
def test_relative_difference_worked_by_hand(ours, theirs, expected):
    assert relative_difference(torch.tensor(ours), torch.tensor(theirs)) == expected
