"""The loss of a batch over its ground truths."""

import pytest
import torch

from detloss.normalizers import Counts, GroundTruthsNormalizer


@pytest.mark.parametrize(
    ("ground_truths", "expected"),
    [
        pytest.param([2, 1], 3.0, id="of the whole batch, whatever the positives"),
        pytest.param([0, 0], 1.0, id="none: over 1"),
        pytest.param([5], 5.0, id="one image"),
    ],
)
def test_worked_by_hand(ground_truths, expected):
    counts = Counts(
        positives=torch.full((len(ground_truths),), 9), ground_truths=torch.tensor(ground_truths)
    )
    assert GroundTruthsNormalizer()(counts).tolist() == [expected] * len(ground_truths)


def test_somebody_has_to_count():
    with pytest.raises(ValueError, match="counts must have ground_truths, got None"):
        GroundTruthsNormalizer()(Counts(positives=torch.tensor([1])))
