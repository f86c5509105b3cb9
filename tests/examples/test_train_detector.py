"""The main job, in a few steps."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import ranks
import torch
import train_detector
import yaml
from data_files import DataError
from digits import digit_scenes
from train_detector import (
    Settings,
    batch,
    config_path,
    load_checkpoint,
    main,
    mirror,
    one_cycle,
    parse,
    save_checkpoint,
    start,
    train,
)

import detloss

CONFIG = str(Path(__file__).parents[2] / "configs" / "retinanet_giou.yaml")


@pytest.fixture
def few_scenes(monkeypatch):
    monkeypatch.setattr(
        train_detector,
        "load_data",
        lambda text, seed, policy: digit_scenes(seed=seed, train=12, test=8),
    )


@pytest.fixture
def settings(tmp_path):
    return Settings(config=CONFIG, steps=4, batch_size=4, out=str(tmp_path / "out"))


def arguments(settings):
    return [
        *("--config", settings.config, "--out", settings.out),
        *("--steps", str(settings.steps), "--batch-size", str(settings.batch_size)),
    ]


def test_a_run_writes_its_results(few_scenes, settings, capsys):
    assert main(arguments(settings)) == 0
    out = Path(settings.out)
    assert {path.name for path in out.iterdir()} == {
        "metrics.json",
        "config.yaml",
        "losses.png",
        "detections.png",
        "checkpoint.pt",
    }
    metrics = json.loads((out / "metrics.json").read_text())
    assert 0 <= metrics["AP"] <= metrics["AP50"] <= 1
    assert metrics["steps"] == 4
    assert yaml.safe_load((out / "config.yaml").read_text())["box"]["type"] == "giou"
    printed = capsys.readouterr().out
    assert "AP50" in printed
    assert "classification" in printed


def interrupt_after(steps, monkeypatch):
    """Ctrl-C while that step is computed."""

    def batch_then_interrupt(data, step, settings):
        if step == steps - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return batch(data, step, settings)

    monkeypatch.setattr(train_detector, "batch", batch_then_interrupt)


def test_ctrl_c_saves_and_says_how_to_resume(few_scenes, settings, monkeypatch, capsys):
    before = signal.getsignal(signal.SIGINT)  # a job in the background ignores it
    interrupt_after(2, monkeypatch)
    assert main(arguments(settings)) == 130
    printed = capsys.readouterr().out
    checkpoint = Path(settings.out) / "checkpoint.pt"
    assert "Stopped after step 2." in printed
    assert f"--resume {checkpoint}" in printed.replace("\n", " ")
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_resumed_run_is_the_uninterrupted_run(settings, monkeypatch, tmp_path):
    data = digit_scenes(seed=0, train=12, test=4)
    criterion = detloss.load_config(settings.config)
    whole = start(settings, data, criterion)
    assert train(whole, data)

    half = start(replace(settings, out=str(tmp_path / "half")), data, criterion)
    interrupt_after(2, monkeypatch)
    assert not train(half, data)
    path = train_detector.save_checkpoint(half)
    monkeypatch.undo()

    torch.manual_seed(123)  # whatever the state of the new process
    resumed = start(replace(settings, seed=5), data, criterion)
    load_checkpoint(path, resumed)
    resumed.settings = settings
    assert train(resumed, data)
    assert resumed.history == whole.history
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_a_time_limit_ends_the_training(few_scenes, settings, capsys):
    limited = replace(settings, steps=None, time_limit=1e-6)
    data = digit_scenes(seed=0, train=12, test=4)
    run = start(limited, data, detloss.load_config(CONFIG))
    assert train(run, data)
    assert run.step == 1
    assert run.progress == 1


@pytest.mark.parametrize(
    ("options", "steps", "minutes"),
    [
        pytest.param([], Settings().steps, None, id="the default steps"),
        pytest.param(["--time-limit", "15"], None, 15, id="a time limit replaces them"),
        pytest.param(["--time-limit", "15", "--steps", "9"], 9, 15, id="both: what comes first"),
    ],
)
def test_how_long_to_train(options, steps, minutes):
    settings, _ = parse(options)
    assert (settings.steps, settings.time_limit) == (steps, minutes)


@pytest.mark.parametrize(
    ("option", "amount"),
    [
        *[(name, "0") for name in ("--steps", "--time-limit", "--batch-size", "--learning-rate")],
        *[(name, "nan") for name in ("--time-limit", "--learning-rate")],
        ("--time-limit", "inf"),
        ("--batch-size", "-4"),
    ],
)
def test_an_amount_that_is_not_positive(option, amount, capsys):
    with pytest.raises(SystemExit) as ended:
        main([option, amount])
    assert ended.value.code == 2
    assert f"{option} must be positive, got {amount}" in capsys.readouterr().err


def test_a_seed_that_no_generator_takes(capsys):
    with pytest.raises(SystemExit):
        main(["--seed", "-1"])
    assert "--seed must be from 0 to 2**63 - 1, got -1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("progress", "factor"),
    [
        pytest.param(0.0, 0.04, id="start"),
        pytest.param(0.075, 0.52, id="half of the warm-up: (0.04 + 1) / 2"),
        pytest.param(0.15, 1.0, id="peak"),
        pytest.param(0.575, 0.5, id="half of the descent"),
        pytest.param(1.0, 0.0, id="end"),
    ],
)
def test_the_learning_rate_goes_up_and_down(progress, factor):
    assert one_cycle(progress) == pytest.approx(factor)


def test_a_config_is_found_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert config_path("configs/retinanet_giou.yaml") == Path(CONFIG)
    (tmp_path / "mine.yaml").touch()
    assert config_path("mine.yaml") == Path("mine.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--data", "nonsense"], "data 'nonsense' is unknown; expected digits, voc:DIR"),
        (["--data", "voc:nowhere"], "nowhere: not there, expected a folder"),
        (["--data", "coco:nowhere:lost.json"], "lost.json: not there, expected a file"),
        (["--data", "yolo:lost.yaml"], "lost.yaml: not there, expected a file"),
        (["--device", "toaster"], "--device toaster cannot be used here: "),
        (["--device", "cuda:99"], "--device cuda:99 cannot be used here: "),
        (["--config", "lost.yaml"], "lost.yaml"),
        (["--config", "."], ""),
    ],
)
def test_a_mistake_of_the_user_is_one_line_and_no_traceback(settings, change, message, capsys):
    assert main([*arguments(settings), *change]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert output.err.count("\n") == 1


def test_a_wrong_config_is_an_error_and_no_traceback(settings, tmp_path, capsys):
    path = tmp_path / "typo.yaml"
    path.write_text(Path(CONFIG).read_text().replace("giou, weight", "guoi, weight"))
    assert main([*arguments(settings), "--config", str(path)]) == 2
    assert "typo.yaml: box.type: unknown box loss 'guoi'" in capsys.readouterr().err


def test_a_missing_checkpoint(capsys):
    with pytest.raises(SystemExit):
        main(["--resume", "nowhere.pt"])
    assert "no checkpoint nowhere.pt" in capsys.readouterr().err


def test_resuming_takes_no_other_options(settings, tmp_path, capsys):
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.touch()
    options = ["--steps", "9", "--batch-size", str(Settings().batch_size)]  # a default is one, too
    with pytest.raises(SystemExit):
        main(["--resume", str(checkpoint), *options])
    assert "leave out --steps, --batch-size" in capsys.readouterr().err


@pytest.fixture
def checkpoint(settings):
    """What a run leaves after two of its four steps."""
    data = digit_scenes(seed=0, train=12, test=4)
    run = start(settings, data, detloss.load_config(settings.config))
    run.history = {name: [1.0, 0.5] for name in run.history}
    run.seconds = 1.0
    return save_checkpoint(run)


def test_resuming_on_another_device(few_scenes, settings, checkpoint, capsys):
    """The run was on a GPU that this machine does not have."""
    state = torch.load(checkpoint, weights_only=True)
    state["settings"]["device"] = "cuda:99"
    torch.save(state, checkpoint)
    assert main(["--resume", str(checkpoint)]) == 2
    assert "--device cuda:99 cannot be used here" in capsys.readouterr().err
    assert main(["--resume", str(checkpoint), "--device", "cpu"]) == 0
    metrics = json.loads((Path(settings.out) / "metrics.json").read_text())
    assert (metrics["steps"], metrics["settings"]["device"]) == (4, "cpu")


def halved(content, state):
    return content[: len(content) // 2]


def saved(change):
    def damaged(content, state):
        file = io.BytesIO()
        torch.save(change(state), file)
        return file.getvalue()

    return damaged


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(halved, "cannot be read (", id="half a file"),
        pytest.param(lambda content, state: b"", "cannot be read (", id="empty"),
        pytest.param(lambda content, state: b"text", "cannot be read (", id="a text"),
        pytest.param(
            saved(lambda state: Path("x")), "cannot be read (Weights only load failed)", id="any"
        ),
        pytest.param(
            saved(lambda state: state["model"]),
            "no settings, classes, model, optimizer, history, seconds in it",
            id="the weights of a model",
        ),
        pytest.param(
            saved(lambda state: [1]), "a list, expected a checkpoint", id="no mapping at all"
        ),
        pytest.param(
            saved(lambda state: state | {"settings": {"steps": 3}}),
            "settings: not those of a run",
            id="settings of another version",
        ),
        pytest.param(
            saved(lambda state: state | {"seconds": "long"}), "of another model", id="no seconds"
        ),
        pytest.param(
            saved(lambda state: state | {"model": {}}), "of another model", id="another model"
        ),
        pytest.param(
            saved(lambda state: state | {"history": {"box": [1.0]}}),
            "of another model",
            id="other losses",
        ),
    ],
)
def test_a_checkpoint_that_is_broken_or_foreign(few_scenes, checkpoint, damage, message, capsys):
    state = torch.load(checkpoint, weights_only=True)
    checkpoint.write_bytes(damage(checkpoint.read_bytes(), state))
    assert main(["--resume", str(checkpoint)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"{checkpoint}: ")
    assert message in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda classes: (*classes, "ten"), id="more"),
        pytest.param(lambda classes: classes[::-1], id="as many in another order"),
    ],
)
def test_a_checkpoint_of_other_classes(checkpoint, settings, change):
    data = digit_scenes(seed=0, train=12, test=4)
    other = replace(data, classes=change(data.classes))
    run = start(settings, other, detloss.load_config(settings.config))
    with pytest.raises(DataError, match=r"checkpoint.pt: classes: \('0', .* those of the data, \("):
        load_checkpoint(checkpoint, run)


def test_a_folder_of_results_that_cannot_be_is_told_before_the_training(
    few_scenes, settings, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(train_detector, "train", lambda run, data: pytest.fail("it was trained"))
    (tmp_path / "file").touch()
    assert main([*arguments(settings), "--out", str(tmp_path / "file" / "out")]) == 2
    assert "Not a directory" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["voc", "coco", "yolo"])
def test_photos_of_each_form_are_trained_on(request, form, settings, capsys):
    data = request.getfixturevalue(form).data
    assert main([*arguments(replace(settings, steps=1, batch_size=2)), "--data", data]) == 0
    assert "AP50" in capsys.readouterr().out


def test_a_photo_that_vanishes_during_training_is_one_line(voc, settings, monkeypatch, capsys):
    def vanishing(data, step, settings):
        for path in voc.image("a").parent.iterdir():
            path.unlink()
        return batch(data, step, settings)

    monkeypatch.setattr(train_detector, "batch", vanishing)
    assert main([*arguments(settings), "--data", voc.data]) == 2
    assert re.fullmatch(r".*/\w.jpg: not there, expected an image\n", capsys.readouterr().err)


def test_faults_of_boxes_are_counted(voc, settings, capsys):
    flat = [voc.object("cat", (x, 9, x, 30)) for x in range(24)]
    voc.add("a", voc.object("cat", (1, 2, 30, 40)), *flat)
    assert main([*arguments(replace(settings, steps=1)), "--data", voc.data]) == 0
    printed = capsys.readouterr().out
    assert printed.count("dropped: no area") == 20
    assert "... and 4 more\n--policy drop: 24 boxes with a fault\n" in printed


def test_a_locale_without_utf_8(voc, settings, tmp_path):
    """Names of classes and files in any letters: read as UTF-8, and told without a traceback."""
    for name in ("a", "Größe"):
        voc.add(name, voc.object("Müller $x^$", (1, 2, 30, 40)), voc.object("犬", (9, 9, 9, 30)))
    config = tmp_path / "größe.yaml"  # which is in the title of the figures
    config.write_text(Path(CONFIG).read_text())
    voc.list("train", "a\nGröße\n")
    command = [sys.executable, train_detector.__file__, "--data", voc.data]
    done = subprocess.run(
        [*command, *arguments(replace(settings, config=str(config), steps=1, batch_size=2))],
        env=os.environ
        | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"dropped: no area" in done.stdout
    assert done.stderr == b""


def test_a_loss_that_the_model_cannot_use_is_an_error_and_no_traceback(settings, tmp_path, capsys):
    path = tmp_path / "softmax.yaml"
    text = Path(CONFIG).read_text()
    line = next(line for line in text.splitlines() if line.startswith("classification:"))
    path.write_text(text.replace(line, "classification: {type: softmax_cross_entropy}"))
    assert main([*arguments(settings), "--config", str(path)]) == 2
    assert "without a background column" in capsys.readouterr().err


def test_mirror_moves_the_boxes_with_the_pixels():
    image = torch.zeros(3, 4, 10)
    image[:, 1:3, 2:5] = 1
    boxes = torch.tensor([[2.0, 1, 5, 3]])
    mirrored, target = mirror(image, {"boxes": boxes})
    assert target["boxes"].tolist() == [[5, 1, 8, 3]]
    assert (mirrored[:, 1:3, 5:8] == 1).all()
    assert mirrored.sum() == image.sum()


def test_batches_cover_every_image_once_an_epoch(settings):
    data = digit_scenes(seed=0, train=12, test=1)
    seen = [image for step in range(3) for image in batch(data, step, settings)[0]]
    originals = [data.train[index][0] for index in range(12)]
    for original in originals:
        assert sum(torch.equal(original, image) for image in seen) == 1


def test_two_processes_learn_what_one_does(tmp_path):
    """R9: the same losses on the same batches; the rounding of sums differs."""
    options = ["--config", CONFIG, "--steps", "3", "--batch-size", "4"]
    program = str(Path(train_detector.__file__))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, prefix in (("one", []), ("two", launch)):
        command = [sys.executable, *prefix, program, *options, "--out", str(tmp_path / name)]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    one, two = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["history"]
        for name in ("one", "two")
    )
    assert list(one) == list(two) == ["classification", "box"]
    for name, values in one.items():
        assert two[name] == pytest.approx(values, rel=1e-3)
    assert (tmp_path / "two" / "metrics.json").exists()


def test_a_batch_that_processes_cannot_share(settings, monkeypatch, capsys):
    monkeypatch.setattr(ranks, "count", lambda: 3)
    assert main(arguments(settings)) == 2
    assert "--batch-size must be a multiple of the 3 processes, got 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "many"], "argument --steps: invalid int value: 'many'"),
        (["--stepz", "1"], "unrecognized arguments: --stepz 1"),
        (["--policy", "keep"], "argument --policy: invalid choice: 'keep'"),
        (["--batch-size", "0"], "--batch-size must be positive, got 0"),
    ],
)
def test_a_mistake_in_an_option_is_one_line(options, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(options)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(message)
    assert told.count("\n") == 1


def test_ctrl_c_before_the_first_step(settings, monkeypatch, capsys):
    def interrupted(text, seed, policy):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_detector, "load_data", interrupted)
    assert main(arguments(settings)) == 130
    assert capsys.readouterr().out == "Stopped.\n"


def test_a_folder_of_results_that_is_read_only_is_told_before_the_training(
    few_scenes, settings, monkeypatch, capsys
):
    def denied(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(train_detector, "train", lambda run, data: pytest.fail("it was trained"))
    monkeypatch.setattr("runs.tempfile.TemporaryFile", denied)
    assert main(arguments(settings)) == 2
    assert f"Permission denied: '{settings.out}'" in capsys.readouterr().err
