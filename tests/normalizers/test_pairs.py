"""A term over its pairs of anchor and ground truth."""

import pytest
import torch
from term_rows import term_rows

from detloss.normalizers import PairsNormalizer, PositivesNormalizer

PAIRS = [[3, 1, 0, 0], [0, 0, 0, 2]]


@pytest.mark.parametrize(
    ("per", "expected"),
    [
        pytest.param("batch", 6.0, id="an anchor of three ground truths is three"),
        pytest.param("image", [8.0, 4.0], id="4 and 2, of two images"),
        pytest.param("images", 6.0, id="images: 4 and 2"),
        pytest.param("level", [4.0, 2.0], id="3 and 1 on the first level, 2 on the second"),
    ],
)
def test_worked_by_hand(per, expected):
    rows = term_rows([[1, 1, 0, 0], [0, 0, 0, 1]], pairs=PAIRS, level_sizes=[2, 2])
    assert PairsNormalizer(per=per)(rows).tolist() == expected


def test_without_several_it_is_the_positives():
    rows = term_rows([4, 0, 3])
    assert torch.equal(PairsNormalizer()(rows), PositivesNormalizer()(rows))


def test_no_pairs_are_one():
    assert PairsNormalizer()(term_rows([0, 0])).item() == 1
