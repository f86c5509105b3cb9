"""The loss of a batch over the sum of its target scores."""

import pytest
import torch

from detloss.normalizers import Counts, TargetScoresNormalizer


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        pytest.param([2.5, 1.0], 3.5, id="of the whole batch"),
        pytest.param([0.25, 0.5], 1.0, id="less than 1: over 1"),
        pytest.param([0.0, 0.0], 1.0, id="none: over 1"),
    ],
)
def test_worked_by_hand(scores, expected):
    counts = Counts(positives=torch.tensor([9, 9]), target_scores=torch.tensor(scores))
    assert TargetScoresNormalizer()(counts).tolist() == [expected, expected]


def test_somebody_has_to_count():
    with pytest.raises(ValueError, match="counts must have target_scores, got None"):
        TargetScoresNormalizer()(Counts(positives=torch.tensor([1])))
