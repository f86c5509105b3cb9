"""The mean of a term over its entries."""

import pytest
from scenes import CLASSES, build, grid_anchors, random_predictions, random_targets
from term_rows import term_rows
from torch.testing import assert_close

from detloss.normalizers import EntriesNormalizer


@pytest.mark.parametrize(
    ("per", "expected"),
    [
        pytest.param("batch", 28.0, id="4 rows of 7 values"),
        pytest.param("image", [42.0, 14.0], id="3 and 1 rows of 7 values, of two images"),
        pytest.param("images", 28.0, id="images: both have some"),
        pytest.param("level", [21.0, 7.0], id="3 rows on the first level, 1 on the second"),
    ],
)
def test_worked_by_hand(per, expected):
    rows = term_rows([0, 0], rows=[[1, 1, 1, 0], [0, 0, 0, 1]], columns=7, level_sizes=[3, 1])
    assert EntriesNormalizer(per=per)(rows).tolist() == expected


def test_the_floor_is_one_entry():
    assert EntriesNormalizer()(term_rows([0], columns=80)).item() == 1


def test_each_term_has_columns_of_its_own():
    """Classes, and the four coordinates of a box."""
    criterion, undivided = build(normalizer={"type": "entries"}), build()
    anchors = grid_anchors()
    inputs = random_predictions(2, len(anchors)), random_targets([2, 1])
    output = criterion(*inputs, anchors=anchors)
    sums = undivided(*inputs, anchors=anchors, normalizer=1)
    positives = sum(match.positive.sum() for match in output.matches)
    counted = sum((~match.ignored).sum() for match in output.matches)
    assert_close(output.terms["classification"], sums.terms["classification"] / counted / CLASSES)
    assert_close(output.terms["box"], sums.terms["box"] / positives / 4)
