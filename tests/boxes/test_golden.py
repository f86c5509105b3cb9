"""The overlap family on ten thousand pairs of every sort, against exact arithmetic."""

import pytest
import torch
from exact import OVERLAPS as EXACT
from exact import golden_inverted_pairs, golden_pairs, reference_of, rows, table

from detloss.boxes import OVERLAPS, paired_overlap, pairwise_overlap
from detloss.registry import REGRESSION


def exact_overlap(kind):
    """From its paper, or as the test file of the loss of its name says."""
    return EXACT[kind] if kind in EXACT else reference_of(REGRESSION[kind]).overlap


def assert_exact(overlap, expected):
    # A measure is some thirty operations, each half an eps off at most, and no difference in it
    # loses what the quotient around it does not give back: the union is at least half of its terms.
    error = (overlap.double() - expected).abs() / expected.abs().clamp(min=1)
    assert error.max() <= 16 * torch.finfo(overlap.dtype).eps


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("kind", OVERLAPS)
class TestEveryKind:
    def test_paired(self, kind, dtype):
        a, b = golden_pairs(dtype)
        overlap = paired_overlap(a, b, kind=kind)
        assert_exact(overlap, table(exact_overlap(kind), rows(a, b)))

    def test_inverted_boxes(self, kind, dtype):
        for a, b in (golden_inverted_pairs(dtype), golden_inverted_pairs(dtype)[::-1]):
            overlap = paired_overlap(a, b, kind=kind)
            assert_exact(overlap, table(exact_overlap(kind), rows(a, b)))

    def test_pairwise(self, kind, dtype):
        a, b = golden_pairs(dtype)
        a, b = a[::250], b[::500]
        pairs = [(first, second) for (first,) in rows(a) for (second,) in rows(b)]
        expected = table(exact_overlap(kind), pairs).view(len(a), len(b))
        assert_exact(pairwise_overlap(a, b, kind=kind), expected)

    @pytest.mark.parametrize("scale", [2.0**-10, 2.0**10], ids=["a thousandth", "a thousandfold"])
    def test_free_of_the_unit_to_the_bit(self, kind, dtype, scale):
        # a power of two rounds nothing; inclusive pixels would add 1 to sides of 1e-6
        if kind not in EXACT and reference_of(REGRESSION[kind]).lengths:
            pytest.skip("it has an option in the unit of the boxes")
        a, b = golden_pairs(dtype)
        overlap = paired_overlap(a, b, kind=kind)
        assert torch.equal(paired_overlap(a * scale, b * scale, kind=kind), overlap)
