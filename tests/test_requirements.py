"""REQUIREMENTS.md names the tests of each requirement; here are those that have no other room."""

import ast
import functools
import re
from pathlib import Path

import pytest
import torch
from scenes import CLASSES, build, gradients, grid_anchors, random_predictions, random_targets
from torch.nn import functional
from torch.testing import assert_close

import detloss
from detloss.classification import SigmoidFocalLoss, sigmoid_focal_loss
from detloss.matchers import MaxIoUMatcher
from detloss.registry import CLASSIFICATION, SECTIONS, options_of
from detloss.regression import BoxLoss, l1_loss
from detloss.terms import BoxTerm, ClassificationTerm

ROOT = Path(__file__).parents[1]
ROWS = re.findall(
    r"^\| (\d+) \| (.+?) \| (.+) \|$", (ROOT / "tests/REQUIREMENTS.md").read_text(), re.M
)
ANCHORS = grid_anchors()


@functools.cache
def names_in(path):
    """What pytest can name in a file: functions, and methods as Class::function."""
    found = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        methods = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {prefix + m.name for m in methods if isinstance(m, ast.FunctionDef)}
    return found


def test_the_table_has_every_requirement_once():
    assert [int(number) for number, _, _ in ROWS] == list(range(1, 65))


@pytest.mark.parametrize(("number", "tests"), [(number, tests) for number, _, tests in ROWS])
def test_every_test_of_the_table_exists(number, tests):
    named = re.findall(r"`(tests/[^`]+)`", tests)
    assert named or tests.startswith("waits for ")
    for test in named:
        path, _, name = test.partition("::")
        assert name in names_in(path), test
        assert name.rpartition("::")[2].startswith("test_"), test


@pytest.mark.parametrize("name", CLASSIFICATION.names())
def test_no_classification_loss_needs_an_eps(name):
    """R8: one that takes the logarithm of a probability does."""
    assert "eps" not in options_of(CLASSIFICATION[name])


@pytest.mark.parametrize(
    ("section", "name"),
    [("classification", "focal"), ("classification", "cross_entropy"), ("box", "overlap")],
)
def test_a_name_of_several_formulas_is_refused_and_the_candidates_are_listed(section, name):
    """R17."""
    accepted = ", ".join(SECTIONS[section].names())
    with pytest.raises(detloss.ConfigError, match=f"unknown .* '{name}', accepted: {accepted}"):
        detloss.build_part(section, {"type": name})


def test_more_background_does_not_dilute_an_object():
    """R22: by default both terms are divided by the positives, not by the anchors."""
    few, targets = random_predictions(1, len(ANCHORS)), random_targets([3])
    nowhere = ANCHORS.repeat(20, 1) + 1e4
    background = random_predictions(1, len(nowhere), seed=1)
    many = {name: torch.cat([few[name], background[name]], dim=1) for name in few}
    criterion = build()
    assert criterion.config()["normalizer"]["type"] == "positives"
    alone = criterion(few, targets, anchors=ANCHORS)
    among = criterion(many, targets, anchors=torch.cat([ANCHORS, nowhere]))
    assert alone.matches[0].positive.any()
    assert_close(gradients(among.total, few), gradients(alone.total, few))


def test_memory_that_runs_out_is_not_caught():
    """R38: memory is bounded by how things are computed, and nothing is tried again elsewhere."""
    sources = set((ROOT / "detloss").rglob("*.py")) - set((ROOT / "detloss/bench").rglob("*.py"))
    for path in sources:  # the bench leaves out a peer that does not import for any reason
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "Exception"
                assert not re.search(r"Memory|Runtime|\b(Base)?Exception\b", caught), path


@pytest.mark.parametrize("name", CLASSIFICATION.names())
def test_indices_and_labels_of_any_dtype_are_equal(name):
    """R49; a dense hinge label is -1 or 1, or a boolean."""
    loss = detloss.build_part("classification", {"type": name})
    logits, index = torch.randn(6, CLASSES) * 3, torch.arange(6) % CLASSES
    one_hot = functional.one_hot(index, CLASSES)
    dense = one_hot * 2 - 1 if name == "hinge" else one_hot
    expected = loss(logits, index)
    assert expected > 0
    targets = [dense.to(dtype) for dtype in (torch.int64, torch.int8, torch.float16, torch.float64)]
    for target in (index.int(), one_hot.bool(), *targets):
        assert_close(loss(logits, target), expected)


def test_what_is_logged_is_detached_and_each_weight_is_applied_once():
    """R11, R53."""
    criterion = build(
        classification={"type": "sigmoid_focal", "weight": 0.3}, box={"type": "giou", "weight": 7.0}
    )
    for counts in ([3, 1], [0, 0]):
        output = criterion(random_predictions(2, 64), random_targets(counts), anchors=ANCHORS)
        assert list(output.terms) == list(output.unweighted) == ["classification", "box"]
        assert output.total == sum(output.terms.values())
        for name, loss in output.unweighted.items():
            assert not loss.requires_grad
            assert output.terms[name] == loss * criterion.terms[name].weight


def test_box_losses_of_several_spaces_add_up():
    """R55: each gets its own rows, deltas or decoded boxes, and its own weight."""
    l1, giou = {"type": "l1", "weight": 0.8}, {"type": "giou", "weight": 0.2}
    inputs = random_predictions(2, 64), random_targets([3, 1])
    both, first, second = (
        detloss.build({"matcher": {"type": "max_iou"}, "box": box})(*inputs, anchors=ANCHORS).terms
        for box in ([l1, giou], l1, giou)
    )
    assert both["box/l1"] == first["box"] > 0
    assert both["box/giou"] == second["box"] > 0


def test_a_criterion_takes_a_loss_that_nobody_registered():
    """R61."""

    class Mine(BoxLoss):
        function = staticmethod(l1_loss)
        space = "deltas"

    mine, plain = (
        detloss.DetectorLoss(
            matcher=MaxIoUMatcher(),
            terms=[ClassificationTerm(SigmoidFocalLoss()), BoxTerm(box)],
        )
        for box in (Mine("mean"), detloss.build_part("box", {"type": "l1"}))
    )
    inputs = random_predictions(1, 64), random_targets([3])
    assert torch.equal(*(c(*inputs, anchors=ANCHORS).total for c in (mine, plain)))


def test_focal_loss_speaks_of_the_bias_it_starts_with():
    """R62."""
    assert "prior_bias" in sigmoid_focal_loss.__doc__
