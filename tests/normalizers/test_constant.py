"""The loss of a batch over a fixed number."""

import pytest
from term_rows import normalized, on_ranks, random_rows, term_rows

from detloss.normalizers import ConstantNormalizer


@pytest.mark.parametrize(
    ("value", "positives", "sums", "expected"),
    [
        pytest.param(256.0, [4, 0], [4.0, 0.0], 4 / 256, id="4 of loss 1 each over 256"),
        pytest.param(2, [1, 3], [2.0, 6.0], 4.0, id="an integer: 8 / 2"),
        pytest.param(0.5, [0, 0], [0.5, 0.25], 1.5, id="below 1: it multiplies"),
    ],
)
def test_worked_by_hand(value, positives, sums, expected):
    assert normalized(ConstantNormalizer(value=value), positives, sums) == expected


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_counted(seed):
    assert ConstantNormalizer(value=0.25)(random_rows(3, seed=seed)).item() == 0.25


def test_it_divides_the_sum_over_the_ranks():
    """The gradients of two ranks are averaged: (a / 10 + b / 10) / 2 = (a + b) / 20."""
    ranks = [term_rows([4, 0]), term_rows([1])]
    divisors = on_ranks(ConstantNormalizer(value=20.0, sync=True), ranks)
    assert [divisor.item() for divisor in divisors] == [10, 10]


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
