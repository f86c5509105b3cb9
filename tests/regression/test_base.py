"""What a box loss says of itself. What holds for every registered loss is in test_contract.py."""

from typing import get_args

import pytest

from detloss.kernels import Space
from detloss.registry import CODERS, REGRESSION
from detloss.regression import BoxLoss


@pytest.mark.parametrize("name", REGRESSION.names())
def test_every_loss_states_its_space(name):
    assert issubclass(REGRESSION[name], BoxLoss)
    assert REGRESSION[name].space in get_args(Space)


@pytest.mark.parametrize("name", REGRESSION.names())
def test_every_space_has_a_coder(name):
    assert any(REGRESSION[name].space in CODERS[coder].spaces for coder in CODERS.names())
