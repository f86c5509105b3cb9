"""docs/losses.md: it says of a loss what the loss does, and what is measured is what is meant."""

import importlib.util
import re
import sys
from importlib.metadata import version

import losses
import pytest
import torch
from losses import COLUMNS, PAGE, STATED, TITLES, CompiledOps, distance, page, stated, truth

from detloss.bench.cases.peers import PEERS, Peer
from detloss.registry import SECTIONS

LOSSES = [(section, name) for section in TITLES for name in SECTIONS[section].names()]
ROWS = {
    cells[0].split("]")[0].strip("["): cells
    for cells in re.findall(r"^\| (\[.*) \|$", PAGE.read_text(), flags=re.MULTILINE)
    for cells in [cells.split(" | ")]
}
"""The cells of the page by the name of the loss."""


@pytest.mark.parametrize(("section", "name"), LOSSES)
def test_the_page_has_what_a_loss_says_of_itself(section, name):
    assert ROWS.get(name, [])[:STATED] == stated(section, name), "run python -m tests.losses"


def test_the_page_has_nothing_else():
    cells = {(section, name): ROWS.get(name, COLUMNS)[STATED:] for section, name in LOSSES}
    (measured_with,) = re.findall(r"^Measured with (.*)\.$", PAGE.read_text(), flags=re.MULTILINE)
    assert page(cells, measured_with) == PAGE.read_text(), "run python -m tests.losses"


@pytest.mark.parametrize(
    ("section", "name", "expected"),
    [
        pytest.param("box", "giou", "0", id="a box is the other"),
        pytest.param("box", "distribution_focal", "0.69", id="half-way between two bins: ln 2"),
        pytest.param("box", "yolo", "1.4", id="the centre of a cell, twice: 2 ln 2"),
        pytest.param("classification", "softmax_focal", "0", id="certain of the class"),
        pytest.param("classification", "sigmoid_focal", "0", id="certain of background, too"),
    ],
)
def test_the_largest_loss_of_the_truth(section, name, expected):
    assert stated(section, name)[3] == expected


def test_the_truth_in_bins_has_the_distance_as_its_expectation():
    logits, distances = truth(losses.build("box", "distribution_focal"))
    bins = torch.arange(logits.shape[-1], dtype=torch.float64)
    torch.testing.assert_close((logits.softmax(-1) * bins).sum(-1), distances)


def test_a_difference_is_that_of_the_sum_or_of_the_gradient():
    loss = losses.build("box", "l1")

    def peer(of):
        return Peer("torch", lambda torch: of)

    def twice(pred, target):
        return 2 * loss(pred, target)

    def half_the_gradient(pred, target):
        value = loss(pred, target)
        return (value + value.detach()) / 2

    assert distance(loss, peer(loss)) == 0
    assert distance(loss, peer(twice)) == 1
    assert distance(loss, peer(half_the_gradient)) == 0.5


def test_a_peer_is_compared_on_the_labels_that_it_takes():
    given = []

    def note(logits, label):
        given.append(label)
        return logits.sum()

    for name, soft in [("sigmoid_focal", False), ("quality_focal", True), ("poly1", False)]:
        distance(losses.build("classification", name), Peer("torch", lambda torch: note, soft))
    hard, soft, index = given
    assert ((hard == 0) | (hard == 1)).all()
    assert ((soft > 0) == (hard > 0)).all()
    assert (soft.max(1).values < 1).all()
    assert index.dtype == torch.long


def test_the_cells_that_are_measured(monkeypatch):
    same = losses.build("box", "ciou", convention="mmdet")
    found = losses.Measurement("", 7.0, 3.0, 0.0, 6.0, 2.5)
    monkeypatch.setattr(losses, "timed", lambda section, name: found)
    peers = [Peer("torch", lambda torch: same), Peer("re", lambda re: same)]
    monkeypatch.setattr(losses, "PEERS", {"ciou": [peers[0].of(convention="mmdet"), peers[1]]})
    differs, time = losses.measured("box", "ciou")
    assert re.fullmatch(r"PyTorch \(convention: mmdet\) 0, re [1-9]e-0[12]", differs)
    assert time == "2.5"
    assert losses.measured("box", "giou") == ["", "1 (7 ms)"]
    assert losses.measured("classification", "zero_one") == ["", "no gradient"]


@pytest.fixture
def command(monkeypatch, tmp_path):
    """The command without a clock, and where it writes."""
    monkeypatch.setattr(losses, "PAGE", tmp_path / "losses.md")
    monkeypatch.setattr(losses, "measured", lambda section, name: [section, f"{len(name)}"])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    return losses.main, tmp_path / "losses.md"


def test_what_is_missing_is_said_and_nothing_is_written(command, monkeypatch, capsys):
    main, file = command
    monkeypatch.setattr(losses, "PEERS", {"giou": [Peer("no_package.losses", vars), *PEERS["l1"]]})
    assert main() == 1
    said = capsys.readouterr().err
    assert said.startswith("must be installed: ")
    assert "no_package.losses" in said
    assert not file.exists()


def test_the_page_is_written(command, monkeypatch):
    main, file = command
    monkeypatch.setattr(losses, "PEERS", {"huber": PEERS["huber"]})
    assert main() == 0
    assert file.read_text().count("\n| [") == len(LOSSES)
    assert f"; torch {version('torch')}." in file.read_text()


def test_the_stand_in_for_compiled_operators_has_whatever_is_imported():
    ops = CompiledOps()
    assert ops.find_spec("mmcv", None) is None
    module = importlib.util.module_from_spec(ops.find_spec("mmcv.ops.nms", None))
    assert issubclass(module.SomeOperator, torch.nn.Module)
    assert not hasattr(module, "__wrapped__")
