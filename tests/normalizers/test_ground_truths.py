"""A term over the ground truths."""

import pytest
import torch
from scenes import build, grid_anchors, random_predictions, random_targets
from term_rows import term_rows

import detloss
from detloss.normalizers import GroundTruthsNormalizer


@pytest.mark.parametrize(
    ("ground_truths", "expected"),
    [
        pytest.param([2, 1], 3.0, id="of the whole batch, whatever the positives"),
        pytest.param([0, 0], 1.0, id="none: over 1"),
        pytest.param([5], 5.0, id="one image"),
    ],
)
def test_worked_by_hand(ground_truths, expected):
    rows = term_rows([9] * len(ground_truths), ground_truths=ground_truths)
    assert GroundTruthsNormalizer()(rows).item() == expected


@pytest.mark.parametrize(
    ("per", "expected"),
    [
        pytest.param("image", [8.0, 2.0], id="4 of the first, 1 at least of the second, of two"),
        pytest.param("images", 5.0, id="4 and at least 1"),
    ],
)
def test_of_images(per, expected):
    rows = term_rows([1, 1], ground_truths=[4, 0])
    assert GroundTruthsNormalizer(per=per)(rows).tolist() == expected


def test_an_ignore_region_is_nothing_to_learn():
    targets = random_targets([3, 2])
    targets[0]["ignore"] = torch.tensor([False, True, False])
    criterion = build(normalizer={"type": "ground_truths"})
    anchors = grid_anchors()
    output = criterion(random_predictions(2, len(anchors)), targets, anchors=anchors)
    assert {name: divisor.item() for name, divisor in output.divisors.items()} == {
        "classification": 4,
        "box": 4,
    }


def test_a_ground_truth_is_on_no_level():
    message = (
        "per must be 'batch', 'image' or 'images', since ground_truths have no levels, got 'level'"
    )
    with pytest.raises(ValueError, match=message):
        GroundTruthsNormalizer(per="level")
    with pytest.raises(detloss.ConfigError, match="normalizer.per: must be"):
        detloss.build_part("normalizer", {"type": "ground_truths", "per": "level"})
