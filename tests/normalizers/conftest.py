"""The one use of a normalizer, for the normalizers' tests."""

import pytest
import torch

from detloss.normalizers import Counts


@pytest.fixture(scope="session")
def normalized():
    """The loss of a batch: the sum over images of each one's summed loss over its divisor."""

    def loss(normalizer, positives, sums):
        divisor = normalizer(Counts(positives=torch.tensor(positives)))
        assert divisor.shape == (len(positives),)
        return float((torch.tensor(sums, dtype=torch.float64) / divisor).sum())

    return loss
