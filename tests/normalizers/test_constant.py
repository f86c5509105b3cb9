"""The loss of a batch over a fixed number."""

import pytest
import torch

from detloss.normalizers import ConstantNormalizer, Counts


@pytest.mark.parametrize(
    ("value", "positives", "sums", "expected"),
    [
        pytest.param(256.0, [4, 0], [4.0, 0.0], 4 / 256, id="4 of loss 1 each over 256"),
        pytest.param(2, [1, 3], [2.0, 6.0], 4.0, id="an integer: 8 / 2"),
        pytest.param(0.5, [0, 0], [0.5, 0.25], 1.5, id="below 1: it multiplies"),
    ],
)
def test_worked_by_hand(value, positives, sums, expected, normalized):
    assert normalized(ConstantNormalizer(value=value), positives, sums) == expected


@pytest.mark.parametrize("positives", [[0, 0], [1, 7], [100, 100]])
def test_positives_do_not_matter(positives):
    divisor = ConstantNormalizer(value=0.25)(Counts(positives=torch.tensor(positives)))
    assert divisor.tolist() == [0.25, 0.25]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"value": 0.0}, ValueError, r"value: expected a value greater than 0, got 0\.0"),
        ({"value": -1.0}, ValueError, r"value: expected a value greater than 0, got -1\.0"),
        ({"value": float("inf")}, ValueError, "value: expected a finite number, got inf"),
        ({"value": "256"}, TypeError, "value: expected a valid number, got '256'"),
        ({}, TypeError, "value"),
    ],
)
def test_rejects_options(options, error, message):
    with pytest.raises(error, match=message):
        ConstantNormalizer(**options)
