"""A term over the anchors that count."""

import pytest
import torch
from scenes import build, grid_anchors, random_predictions, random_targets
from term_rows import term_rows

from detloss.normalizers import AnchorsNormalizer

COUNTED = [[True, True, True, False], [False, False, True, False]]


@pytest.mark.parametrize(
    ("per", "expected"),
    [
        pytest.param("batch", 4.0, id="3 of the first image, 1 of the second"),
        pytest.param("image", [6.0, 2.0], id="each image's, of two images"),
        pytest.param("images", 4.0, id="images: both have some"),
        pytest.param("level", [2.0, 2.0], id="the first two anchors of each are a level"),
    ],
)
def test_worked_by_hand(per, expected):
    rows = term_rows([[1, 0, 0, 0], [0, 0, 0, 0]], counted=COUNTED, level_sizes=[2, 2])
    assert AnchorsNormalizer(per=per)(rows).tolist() == expected


def test_where_nothing_counts_it_is_one():
    assert AnchorsNormalizer()(term_rows([0], counted=[[False] * 10])).item() == 1


def test_the_sampler_chooses_first():
    """Three background anchors a positive, as many there are."""
    criterion = build(
        sampler={"type": "hard_negative", "ratio": 3.0}, normalizer={"type": "anchors"}
    )
    anchors = grid_anchors()
    output = criterion(random_predictions(2, len(anchors)), random_targets([2, 1]), anchors=anchors)
    positives = sum(match.positive.sum() for match in output.matches)
    for term in ("classification", "box"):
        assert output.divisors[term] == 4 * positives
    counted = torch.stack([~match.ignored for match in output.matches])
    assert output.divisors["box"] == counted.sum()
