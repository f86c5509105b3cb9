"""The comparison, in a few steps."""

import math
import re
from pathlib import Path

import compare_losses
import every_loss
import pytest
from digits import digit_scenes
from every_loss import Row, candidates, conclusion
from runs import Settings
from train_detector import train

from detloss.registry import CLASSIFICATION, REGRESSION, SECTIONS

CONFIGS = Path(__file__).parents[2] / "configs"


def test_one_table_and_one_figure(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        compare_losses.detection_data,
        "load_data",
        lambda text, seed, policy: digit_scenes(seed=seed, train=16, test=4),
    )
    configs = [str(CONFIGS / name) for name in ("retinanet.yaml", "retinanet_ciou.yaml")]
    assert compare_losses.main([*configs, "--steps", "1", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("AP50") == 1
    rows = [line for line in printed.splitlines() if line.startswith("│")]
    assert [row.split()[1] for row in rows] == ["retinanet", "retinanet_ciou"]
    assert (tmp_path / "comparison.png").stat().st_size > 0
    assert {p.name for p in tmp_path.iterdir()} == {
        "comparison.png",
        "retinanet",
        "retinanet_ciou",
    }


def test_the_same_name_twice(capsys):
    with pytest.raises(SystemExit):
        compare_losses.main(["a/retinanet.yaml", "b/retinanet.yaml"])
    assert "configs must have different names" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--data", "voc:nowhere"], "nowhere: not there, expected a folder"),
        (["--device", "toaster"], "--device toaster cannot be used here: "),
        (["lost.yaml"], "lost.yaml"),
    ],
)
def test_a_mistake_of_the_user_is_one_line_and_no_traceback(change, message, tmp_path, capsys):
    arguments = [str(CONFIGS / "retinanet.yaml"), *change, "--steps", "1", "--out", str(tmp_path)]
    assert compare_losses.main(arguments) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.count("\n") == 1


@pytest.fixture
def few_losses(monkeypatch):
    """Scenes and losses that are soon done; two of the losses do not fit."""
    few = digit_scenes(seed=0, train=16, test=4)
    monkeypatch.setattr(compare_losses.detection_data, "load_data", lambda text, seed, policy: few)
    names = {"classification": ["hinge", "softmax_focal"], "box": ["distribution_focal", "giou"]}
    for section, chosen in names.items():
        monkeypatch.setattr(SECTIONS[section], "names", lambda chosen=chosen: chosen)


def test_every_loss_is_a_line_on_the_screen_and_in_the_file(few_losses, tmp_path, capsys):
    assert compare_losses.main(["--all", "--steps", "2", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("2 losses, 2 steps each\n")
    assert "left out softmax_focal: criterion must have a classification loss without" in printed
    assert "left out distribution_focal: config: box: distribution_focal is a loss" in printed
    text = (tmp_path / "retinanet" / "losses.md").read_text()
    assert re.findall(r"^\| (\w+) \| first \| last", text, re.MULTILINE) == [
        "classification",
        "box",
    ]
    for name in ("hinge", "giou"):
        of_screen = re.search(rf"^{name} +(.*?) *$", printed, re.MULTILINE)[1].split()
        of_file = re.search(rf"^\| {name} \| (.*) \|$", text, re.MULTILINE)[1].split(" | ")
        assert of_screen == of_file
        first, last, falls, ap50, not_finite, _ = of_file
        assert falls == ("yes" if float(last) < float(first) else "no")
        assert 0 <= float(ap50) <= 1
        assert not_finite == "0"
    assert conclusion_of(printed) == conclusion_of(text)


def conclusion_of(text):
    return re.search(r"(Each is lower|Not lower).*(was finite|finite: \w+)", text)[0]


def test_every_registered_loss_fits_or_is_left_out_for_a_reason():
    few = digit_scenes(seed=0, train=1, test=1)
    fitting, left_out = candidates(Settings(), few)
    for term, section in (("classification", CLASSIFICATION), ("box", REGRESSION)):
        found = [loss for of_term, loss in fitting if of_term == term]
        assert sorted([*found, *(name for name in left_out if name in section)]) == section.names()
    for name, reason in left_out.items():
        assert re.search(f"background column|bins|gradient|{name} needs it", reason), reason


def row(*values, other=1.0, moving=False):
    history = {"box": values, "classification": [other] * len(values)}
    return Row("box", "giou", history, moving, ap50=0.25, seconds=61.6)


@pytest.mark.parametrize(
    ("given", "cells"),
    [
        pytest.param(row(4.0, 1.0), ["4", "1", "yes", "0.250", "0", "62"], id="falls"),
        pytest.param(row(1.0, 4.0), ["1", "4", "no", "0.250", "0", "62"], id="rises"),
        pytest.param(
            row(1.0, 4.0, moving=True),
            ["1", "4", "label grows", "0.250", "0", "62"],
            id="rises with the labels",
        ),
        pytest.param(
            row(1.0, math.inf, moving=True),
            ["1", "inf", "no", "0.250", "1", "62"],
            id="no label is infinite",
        ),
        pytest.param(row(2.0), ["2", "2", "no", "0.250", "0", "62"], id="a single step"),
        pytest.param(
            row(3.0, 5.0, *[9.0] * 16, 2.0, 1.0),
            ["4", "1.5", "yes", "0.250", "0", "62"],
            id="means of a tenth",
        ),
        pytest.param(
            row(4.0, math.nan), ["4", "nan", "no", "0.250", "1", "62"], id="not a number at last"
        ),
        pytest.param(
            row(4.0, 1.0, other=math.inf),
            ["4", "1", "yes", "0.250", "2", "62"],
            id="another term is not finite",
        ),
    ],
)
def test_a_row_worked_by_hand(given, cells):
    assert given.cells() == cells


def test_what_does_not_fall_or_is_not_finite_is_named():
    assert conclusion([row(2.0, 1.0)]) == "Each is lower at the end. Every step was finite."
    assert conclusion([row(2.0, math.inf), row(2.0, 1.0)]) == (
        "Not lower at the end: giou. Not always finite: giou."
    )
    assert conclusion([row(2.0, 1.0), row(1.0, 2.0, moving=True)]) == (
        "Each is lower at the end. But where the label grows with the boxes' IoU: giou. "
        "Every step was finite."
    )


def test_ctrl_c_keeps_what_is_done(few_losses, monkeypatch, tmp_path, capsys):
    titles = []

    def once(run, data, *, title):
        titles.append(title)
        return len(titles) == 1 and train(run, data, title=title)

    monkeypatch.setattr(every_loss, "train", once)
    assert compare_losses.main(["--all", "--steps", "1", "--out", str(tmp_path)]) == 130
    text = (tmp_path / "retinanet" / "losses.md").read_text()
    assert "| hinge |" in text
    assert "| giou |" not in text
    assert "Stopped" in capsys.readouterr().out
    assert titles[0] == "1 of 2: hinge"
    assert re.fullmatch(r"2 of 2, \d+ min left: giou", titles[1])


@pytest.mark.parametrize("arguments", [[], ["--all", "a.yaml"]])
def test_configs_or_all_of_them(arguments, capsys):
    with pytest.raises(SystemExit):
        compare_losses.main(arguments)
    assert "expected configs, or --all without them" in capsys.readouterr().err
