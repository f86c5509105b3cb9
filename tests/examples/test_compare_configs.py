"""The comparison of configs, in a step each."""

from pathlib import Path

import compare_configs
import compare_losses
import pytest
from compare_configs import CONFIGS, MINUTES, main, parse
from digits import digit_scenes
from train_detector import config_path

NAMES = ["retinanet", "fcos"]


@pytest.fixture
def few_scenes(monkeypatch):
    monkeypatch.setattr(
        compare_losses.detection_data,
        "load_data",
        lambda text, seed, policy: digit_scenes(seed=seed, train=16, test=4),
    )


def test_a_line_each_and_one_table_and_one_picture(few_scenes, tmp_path, capsys):
    configs = [f"configs/{name}.yaml" for name in NAMES]
    assert main([*configs, "--time-limit", "1e-6", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "retinanet (RetinaNet): steps 1  AP 0." in printed
    assert "fcos (SmallYOLO): steps 1  AP 0." in printed
    rows = [line.split("│")[1:-1] for line in printed.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row[:3]] for row in rows] == [
        ["retinanet", "RetinaNet", "1"],
        ["fcos", "SmallYOLO", "1"],
    ]
    assert {path.name for path in tmp_path.iterdir()} == {
        "comparison.md",
        "detections.png",
        *NAMES,
    }
    written = (tmp_path / "comparison.md").read_text().splitlines()
    assert written[0] == "digits, 1e-06 minutes each, seed 0"
    assert written[2].split("|")[1:3] == [" config    ", " head      "]
    assert len(written) == 4 + len(rows)
    for name in NAMES:
        assert (tmp_path / name / "metrics.json").is_file()


def test_without_a_config_it_is_seven_of_those_that_come_along_in_twenty_minutes():
    settings = parse([])
    assert list(settings) == list(CONFIGS)
    assert len(settings) == 7
    assert all(config_path(one.config).is_file() for one in settings.values())
    assert {one.time_limit for one in settings.values()} == {MINUTES}
    assert {one.steps for one in settings.values()} == {None}
    assert 7 * MINUTES < 20 - 7 * 0.25  # and some seconds for each to evaluate and draw


def test_all_have_the_same_settings_but_for_config_and_folder():
    options = ["--steps", "9", "--time-limit", "3", "--seed", "5", "--data", "voc:x"]
    one, other = parse(["a/one.yaml", "other.yaml", *options, "--out", "there"]).values()
    assert (one.config, one.out) == ("a/one.yaml", str(Path("there", "one")))
    assert (one.steps, one.time_limit, one.seed, one.data) == (9, 3, 5, "voc:x")
    assert compare_configs.described(one) == "voc, 3 minutes each, at most 9 steps, seed 5"
    assert (other.steps, other.time_limit, other.seed, other.data) == (9, 3, 5, "voc:x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a/fcos.yaml", "b/fcos.yaml"], "configs must have different names, got fcos, fcos"),
        (["--time-limit", "0"], "--time-limit must be positive, got 0.0"),
        (["--steps", "-1"], "--steps must be positive, got -1"),
        (["--seed", "-1"], "--seed must be from 0 to 2**63 - 1, got -1"),
    ],
)
def test_a_wrong_option(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_config_that_no_head_serves_is_told_before_the_first_training(
    few_scenes, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(compare_configs, "train", lambda run, data: pytest.fail("it was trained"))
    configs = ["configs/fcos.yaml", "configs/foveabox.yaml"]
    assert main([*configs, "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "scale_ranges must have one entry for each of 3 levels, got 5" in told
    assert told.count("\n") == 1


def test_ctrl_c_ends_it(few_scenes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare_configs, "train", lambda run, data: False)
    assert main(["configs/fcos.yaml", "--out", str(tmp_path)]) == 130
    assert "Stopped; a comparison starts over." in capsys.readouterr().out
