"""How sure the classifier is of an anchor."""

from types import SimpleNamespace

import pytest
import torch

from detloss.qualities import ConfidenceQuality


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        pytest.param([0.25, 0.75, 0.5], 0.75, id="the largest, of whatever class"),
        pytest.param([0.0, 0.0, 0.0], 0.0, id="none"),
        pytest.param([1.0, 1.0, 0.5], 1.0, id="classes are no shares of one"),
        pytest.param([0.5], 0.5, id="one class"),
        pytest.param([], 0.0, id="no classes"),
    ],
)
def test_worked_by_hand(probabilities, expected):
    positives = SimpleNamespace(probabilities=torch.tensor([probabilities]))
    assert ConfidenceQuality()(positives).tolist() == [expected]


@pytest.mark.parametrize(("count", "classes"), [(0, 3), (0, 0), (5, 0)])
def test_shape(count, classes):
    positives = SimpleNamespace(probabilities=torch.ones(count, classes))
    assert ConfidenceQuality()(positives).shape == (count,)
