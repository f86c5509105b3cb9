"""The code of the README and of docs/ runs as it stands there."""

import ast
import doctest
import re
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from scenes import call_of, grid_anchors, predictions_for, random_targets
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close

import detloss
from detloss import registry
from detloss.config import LAYER_OPTIONS
from detloss.normalizers import PositivesNormalizer
from detloss.registry import TERMS, options_of

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = [README, *sorted((ROOT / "docs").glob("*.md"))]
RUN = [path for path in DOCS if path.name != "errors.md"]  # whose code raises: see test_errors.py
LINKED = [*DOCS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


def blocks(path, language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [text for kind, text in found if kind == language]


def block(path, language, containing):
    (found,) = [text for text in blocks(path, language) if containing in text]
    return found


def run(path, names=None):
    """Runs the Python of a page, one block after the other."""
    names = {} if names is None else names
    for text in blocks(path, "python"):
        exec(compile(text, str(path), "exec"), names)
    return names


@pytest.fixture(autouse=True)
def registries_as_before(monkeypatch):
    for found in vars(registry).values():
        if isinstance(found, registry.Registry):
            monkeypatch.setattr(found, "_classes", dict(found._classes))


def test_the_readme_is_read_in_one_go():
    assert len(README.read_text().splitlines()) <= 130


@pytest.fixture
def graphs(monkeypatch):
    """Counts the graphs of what a page compiles, and spares their code, which takes a minute."""
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    torch.compiler.reset()
    return counter


@pytest.mark.parametrize("path", RUN, ids=lambda path: path.name)
def test_the_python_of_a_page_runs(path, graphs):
    run(path)
    assert graphs.frame_count <= 2, "docs/speed.md says how many"


def test_the_training_loop_runs(capsys):
    exec(block(README, "python", "load_config"), {})
    assert "'box/unweighted'" in capsys.readouterr().out


def test_the_micro_batches_learn_what_their_batch_does():
    page = ROOT / "docs" / "training.md"
    names = {}
    exec(block(page, "python", "nn.Linear"), names)
    head, criterion = names["head"], names["criterion"]
    criterion.normalizer = PositivesNormalizer()
    logits, deltas = head(names["features"]).split([3, 4], dim=-1)
    predictions = {"class_logits": logits, "box_regression": deltas}
    output = criterion(predictions, names["targets"], anchors=names["anchors"])
    (expected,) = torch.autograd.grad(output.total, head.weight)
    head.zero_grad()
    exec(block(page, "python", "micro_batches = "), names)
    assert_close(head.weight.grad, expected)


def test_a_loss_of_your_own_builds_from_a_config():
    exec(block(README, "python", "CharbonnierLoss"), {})
    loss = detloss.build_part("box", {"type": "charbonnier", "epsilon": 0.1})
    assert loss.config() == {"type": "charbonnier", "epsilon": 0.1, "reduction": "mean"}


CONFIGS = [
    pytest.param(text, id=f"{path.name}-{number}")
    for path in RUN
    for number, text in enumerate(blocks(path, "yaml"))
]


@pytest.mark.parametrize("text", CONFIGS)
def test_the_configs_build_and_train(text, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    criterion = detloss.load_config(path)
    predictions, anchors = predictions_for(criterion, 2, 64), grid_anchors()
    output = criterion(predictions, random_targets([2, 0]), anchors=anchors, **call_of(criterion))
    output.total.backward()
    assert output.total.isfinite()


def test_the_quoted_errors_are_what_one_gets(tmp_path):
    path = tmp_path / "mine.yaml"
    page = ROOT / "docs" / "config.md"
    config = yaml.safe_load(block(page, "yaml", "low_quality"))
    quoted = block(page, "", "mine.yaml").splitlines()
    mistakes = [{"type": "cuoi"}, {"type": "ciou", "weight": -2.0}]
    for box, line in zip(mistakes, quoted, strict=True):
        path.write_text(yaml.safe_dump(config | {"box": box}))
        with pytest.raises(detloss.ConfigError) as error:
            detloss.load_config(path)
        got = str(error.value).replace(f"{tmp_path}/", "")
        assert doctest.OutputChecker().check_output(line, got, doctest.ELLIPSIS), got


def test_the_page_on_configs_has_each_option_of_a_term():
    page = (ROOT / "docs" / "config.md").read_text()
    named = re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)
    options = {option for name in TERMS.names() for option in options_of(TERMS[name])}
    assert set(named) == options - {"loss"} | set(LAYER_OPTIONS)


def test_the_page_on_training_has_each_form_of_data():
    page = (ROOT / "docs" / "training.md").read_text()
    named = re.findall(r"^\| `(\S+)` \|", page, flags=re.MULTILINE)
    source = ast.parse((ROOT / "examples" / "detection_data.py").read_text())
    (forms,) = [
        ast.literal_eval(node.value)
        for node in source.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DATA_FORMS"
    ]
    assert named == re.split(r", | or ", forms)


@pytest.mark.parametrize("path", LINKED, ids=lambda path: path.name)
def test_links_and_commands_lead_to_files(path):
    text = path.read_text()
    linked = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert all((path.parent / link).exists() for link in linked), linked
    commands = "\n".join(blocks(path, "bash"))
    named = re.findall(r"(?:configs|examples|tests)/\S+", commands)
    assert all((ROOT / name).exists() for name in named), named
