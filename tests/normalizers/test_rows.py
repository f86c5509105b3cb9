"""The mean of a term over its rows."""

import pytest
from scenes import build, grid_anchors, random_predictions, random_targets
from term_rows import term_rows
from torch.testing import assert_close

from detloss.normalizers import RowsNormalizer


@pytest.mark.parametrize(
    ("per", "expected"),
    [
        pytest.param("batch", 4.0, id="3 of the first image, 1 of the second"),
        pytest.param("image", [6.0, 2.0], id="each image's, of two images"),
        pytest.param("images", 4.0, id="images: both have some"),
        pytest.param("level", [3.0, 1.0], id="3 on the first level, 1 on the second"),
    ],
)
def test_worked_by_hand(per, expected):
    rows = term_rows([0, 0], rows=[[1, 1, 1, 0], [0, 0, 0, 1]], columns=7, level_sizes=[3, 1])
    assert RowsNormalizer(per=per)(rows).tolist() == expected


def test_each_term_has_rows_of_its_own():
    """The mean over the anchors that count, and that over the positives."""
    criterion, undivided = build(normalizer={"type": "rows"}), build()
    anchors = grid_anchors()
    inputs = random_predictions(2, len(anchors)), random_targets([2, 1])
    output = criterion(*inputs, anchors=anchors)
    sums = undivided(*inputs, anchors=anchors, normalizer=1)
    positives = sum(match.positive.sum() for match in output.matches)
    counted = sum((~match.ignored).sum() for match in output.matches)
    assert counted > positives > 0
    assert_close(output.terms["classification"], sums.terms["classification"] / counted)
    assert_close(output.terms["box"], sums.terms["box"] / positives)
