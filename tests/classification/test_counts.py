"""What is made of the number of examples of each class."""

import math

import mpmath
import pytest
import torch
from labelled import WITH_BACKGROUND, assert_gives
from torch.testing import assert_close

import detloss
from detloss.classification import effective_number_weights, softmax_cross_entropy
from detloss.classification.counts import log_prior

COUNTS = [100, 10, 1, 1000]
"""Of a long tail, the background last."""


@pytest.mark.parametrize(
    ("counts", "beta", "expected"),
    [
        pytest.param([1, 2], 0.5, [6 / 5, 4 / 5], id="effective numbers 1 and 3/2"),
        pytest.param([1, 2, 3], 0.5, [63 / 47, 42 / 47, 36 / 47], id="and 7/4"),
        pytest.param([5, 50, 500], 0.0, [1.0, 1.0, 1.0], id="beta 0: each class counts once"),
        pytest.param([10**9, 10**12], 0.9, [1.0, 1.0], id="enough of both"),
        pytest.param([7.0], 0.999, [1.0], id="one class"),
    ],
)
def test_weights_worked_by_hand(counts, beta, expected):
    weights = effective_number_weights(counts, beta=beta)
    assert weights.dtype == torch.float32
    assert_close(weights, torch.tensor(expected))
    assert_close(effective_number_weights(torch.tensor(counts), beta=beta), weights)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (COUNTS, [0.036177, 0.360151, 3.599889, 0.003783]),
        (COUNTS[:3], [0.027159, 0.270369, 2.702472]),
    ],
)
def test_weights_of_the_authors_code(counts, expected):
    assert_close(effective_number_weights(counts), torch.tensor(expected), atol=1e-6, rtol=1e-6)


def test_cross_entropy_of_the_authors_code():
    """Each row times the weight of its class."""
    values = [0.012385, 2.022927, 0.005307]
    gradients = [
        [-0.010488, 0.001279, 0.005732, 0.003477],
        [0.037589, 0.754999, -1.547588, 0.754999],
        [0.001028, 0.001136, 0.000689, -0.002853],
    ]
    class_weight = effective_number_weights(COUNTS)
    assert_gives(
        values, gradients, softmax_cross_entropy, WITH_BACKGROUND, class_weight=class_weight
    )


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9999, 1 - 1e-9, 1 - 1e-15])
def test_agrees_with_the_formula(beta):
    """Also of counts that are shares, of which ``1 - beta^n`` may be a small difference."""
    counts = [1e-3, 1, 10, 1e3, 1e7]
    weights = effective_number_weights(counts, beta=beta)
    with mpmath.workdps(50):
        exact = [(1 - mpmath.mpf(beta)) / (1 - mpmath.mpf(beta) ** n) for n in counts]
        expected = [float(len(counts) * w / sum(exact)) for w in exact]
    assert_close(weights, torch.tensor(expected), rtol=2e-7, atol=0)
    assert weights.sum().item() == pytest.approx(5, rel=1e-6)


def test_towards_1_weights_are_inverse_frequencies():
    weights = effective_number_weights([1, 2, 4], beta=1 - 1e-12)
    assert_close(weights, torch.tensor([12 / 7, 6 / 7, 3 / 7]))


def test_they_are_a_class_weight():
    weights = effective_number_weights(COUNTS)
    loss = detloss.build_part(
        "classification", {"type": "softmax_cross_entropy", "class_weight": weights}
    )
    assert_close(loss.class_weight, weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_prior_worked_by_hand(dtype):
    """3 and 1 of 4."""
    expected = torch.tensor([math.log(3 / 4), math.log(1 / 4)], dtype=dtype)
    assert_close(log_prior([3, 1], torch.zeros(5, 2, dtype=dtype)), expected)


@pytest.mark.parametrize(
    "function",
    [effective_number_weights, lambda counts: log_prior(counts, torch.zeros(3, 2))],
    ids=["weights", "prior"],
)
@pytest.mark.parametrize(
    ("counts", "error", "message"),
    [
        ([1, 0], ValueError, "counts must be finite and greater than 0, got 0"),
        ([1, -2.0], ValueError, "counts must be finite and greater than 0, got -2.0"),
        ([1, math.inf], ValueError, "counts must be finite and greater than 0, got inf"),
        (torch.tensor([1, 0]), ValueError, "counts must be finite and greater than 0, got 0"),
        (
            torch.tensor([1, math.nan]),
            ValueError,
            "counts must be finite and greater than 0",
        ),
        ([1, True], TypeError, "counts must be numbers, got True"),
        (torch.ones(2, 2), ValueError, r"counts must have shape \((2|C),\).*, got \(2, 2\)"),
        ([], ValueError, r"counts must have shape \((2|C),\).*, got \(0,\)"),
    ],
)
def test_rejects_counts(function, counts, error, message):
    with pytest.raises(error, match=message):
        function(counts)


@pytest.mark.parametrize("beta", [-0.1, 1.0, math.nan])
def test_rejects_a_beta_out_of_range(beta):
    with pytest.raises(ValueError, match=rf"beta must be in \[0, 1\), got {beta}"):
        effective_number_weights([1, 2], beta=beta)
