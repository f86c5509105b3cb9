"""What a box loss says of itself. What holds for every registered loss is in test_contract.py."""

import pytest

from detloss.registry import REGRESSION
from detloss.regression import BoxLoss


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("l1", "deltas"),
        ("l2", "deltas"),
        ("smooth_l1", "deltas"),
        ("iou", "boxes"),
        ("giou", "boxes"),
        ("diou", "boxes"),
        ("ciou", "boxes"),
    ],
)
def test_every_loss_states_the_space_its_paper_defines_it_in(name, space):
    assert issubclass(REGRESSION[name], BoxLoss)
    assert REGRESSION[name].space == space
    assert REGRESSION[name]().space == space


@pytest.mark.parametrize("name", REGRESSION.names())
def test_no_loss_leaves_its_space_unsaid(name):
    assert REGRESSION[name].space in ("boxes", "deltas")
