"""The README's Python runs as it stands there."""

import re
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import detloss
from detloss.normalizers import PositivesNormalizer
from detloss.registry import REGRESSION

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)


def code(language, containing):
    (block,) = [text for kind, text in BLOCKS if kind == language and containing in text]
    return block


def test_the_training_loop_runs(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(code("python", "load_config"), {})
    assert "'box/unweighted'" in capsys.readouterr().out


def test_the_micro_batches_learn_what_their_batch_does(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {}
    exec(code("python", "load_config"), names)
    head, criterion = names["head"], names["criterion"]
    criterion.normalizer = PositivesNormalizer()
    logits, deltas = head(names["features"]).split([3, 4], dim=-1)
    predictions = {"class_logits": logits, "box_regression": deltas}
    output = criterion(predictions, names["targets"], anchors=names["anchors"])
    (expected,) = torch.autograd.grad(output.total, head.weight)
    head.zero_grad()
    exec(code("python", "micro_batches"), names)
    assert_close(head.weight.grad, expected)


def test_a_loss_of_your_own_builds_from_a_config(monkeypatch):
    monkeypatch.setattr(REGRESSION, "_classes", dict(REGRESSION._classes))
    exec(code("python", "HuberLoss"), {})
    loss = detloss.build_part("box", {"type": "huber", "delta": 0.1})
    assert loss.config() == {"type": "huber", "delta": 0.1, "reduction": "mean"}


def test_the_configs_build(tmp_path):
    for kind, text in BLOCKS:
        if kind == "yaml":
            path = tmp_path / "readme.yaml"
            path.write_text(text)
            detloss.load_config(path)


def test_the_quoted_error_is_what_one_gets(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(code("yaml", "type: giou").replace("giou", "cuoi"))
    with pytest.raises(detloss.ConfigError) as error:
        detloss.load_config(path)
    assert str(error.value).replace(f"{tmp_path}/", "") in README
