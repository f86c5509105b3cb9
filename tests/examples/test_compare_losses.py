"""The comparison, in a few steps."""

from pathlib import Path

import compare_losses
import pytest
from digits import digit_scenes

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
