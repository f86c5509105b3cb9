"""A term over its positive anchors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from term_rows import normalized, term_rows

from detloss.normalizers import PositivesNormalizer


@pytest.mark.parametrize(
    ("positives", "sums", "expected"),
    [
        pytest.param([4, 0], [4.0, 0.0], 1.0, id="4 of loss 1 each: 4 / 4"),
        pytest.param([1, 3], [2.0, 6.0], 2.0, id="a positive counts the same anywhere: 8 / 4"),
        pytest.param(
            [0, 0], [0.5, 0.25], 0.75, id="no positives: over 1, the background is learned"
        ),
        pytest.param([5], [10.0], 2.0, id="one image"),
    ],
)
def test_worked_by_hand(positives, sums, expected):
    assert normalized(PositivesNormalizer(), positives, sums) == expected


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 100)), min_size=1, max_size=8))
def test_is_the_sum_over_the_count(images):
    positives, sums = (list(column) for column in zip(*images, strict=True))
    expected = sum(sums) / max(1, sum(positives))
    assert normalized(PositivesNormalizer(), positives, sums) == pytest.approx(expected, rel=1e-12)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_does_not_depend_on_how_images_share_the_positives(positives):
    together = normalized(PositivesNormalizer(), [sum(positives)], [7.0])
    apart = normalized(PositivesNormalizer(), positives, [7.0] + [0.0] * (len(positives) - 1))
    assert together == apart


def test_nothing_else_matters():
    """Two ground truths of which one has no anchor, pairs, scores, ignored anchors."""
    rows = term_rows(
        [[1, 1, 0]],
        counted=[[True, True, False]],
        ground_truths=[9],
        pairs=[[2, 1, 0]],
        rows=[[2, 1, 0]],
        target_scores=[[0.5, 0.0, 0.0]],
        row_weights=[[0.5, 0.25, 0.0]],
        columns=4,
    )
    assert PositivesNormalizer()(rows).item() == 2
