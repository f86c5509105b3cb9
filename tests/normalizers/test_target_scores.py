"""A term over the sum of the target scores."""

import pytest
import torch
from scenes import build, grid_anchors, random_predictions, random_targets
from term_rows import term_rows
from torch.testing import assert_close

from detloss.normalizers import TargetScoresNormalizer


@pytest.mark.parametrize(
    ("scores", "options", "expected"),
    [
        pytest.param([[0.5, 2.0], [1.0, 0.0]], {}, 3.5, id="of the whole batch"),
        pytest.param([[0.25, 0.0], [0.5, 0.0]], {}, 1.0, id="less than 1: over 1"),
        pytest.param([[0.25, 0.0], [0.5, 0.0]], {"floor": "none"}, 0.75, id="without a floor"),
        pytest.param([[0.0, 0.0], [0.0, 0.0]], {}, 1.0, id="none: over 1"),
        pytest.param(
            [[3.0, 1.0], [0.5, 0.0]], {"per": "image"}, [8.0, 2.0], id="4 and at least 1, of two"
        ),
        pytest.param([[3.0, 1.0], [0.5, 0.0]], {"per": "images"}, 5.0, id="4 and at least 1"),
        pytest.param(
            [[3.0, 1.0], [0.5, 0.0]], {"per": "level"}, [3.5, 1.0], id="an anchor is a level"
        ),
    ],
)
def test_worked_by_hand(scores, options, expected):
    rows = term_rows([2, 1], anchors=2, target_scores=scores, level_sizes=[1, 1])
    assert TargetScoresNormalizer(**options)(rows).tolist() == expected


def divisors(targets, **classification):
    """What the terms of a criterion are divided by, and its positives of each ground truth."""
    criterion = build(
        classification={"type": "sigmoid_cross_entropy", **classification},
        normalizer={"type": "target_scores"},
    )
    anchors = grid_anchors()
    output = criterion(random_predictions(1, len(anchors)), targets, anchors=anchors)
    (match,) = output.matches
    counts = match.target_index[match.positive].bincount(minlength=len(targets[0]["boxes"]))
    return output.divisors, counts, match


def test_a_label_of_one_counts_the_weight_of_its_ground_truth():
    targets = random_targets([2])
    targets[0]["weights"] = torch.tensor([0.5, 3.0])
    found, counts, _ = divisors(targets)
    assert (counts > 0).all()
    expected = (counts * targets[0]["weights"]).sum()
    assert_close(found, {"classification": expected, "box": expected})


def test_the_label_of_the_classification_divides_every_term():
    targets = random_targets([2])
    targets[0]["weights"] = torch.tensor([0.5, 3.0])
    found, _, match = divisors(targets, label="centerness")
    centre = (grid_anchors()[:, :2] + grid_anchors()[:, 2:]) / 2
    expected = 0.0
    for anchor in match.positive.nonzero().flatten().tolist():
        truth = match.target_index[anchor]
        (x, y), (x1, y1, x2, y2) = centre[anchor].tolist(), targets[0]["boxes"][truth].tolist()
        left, top, right, bottom = x - x1, y - y1, x2 - x, y2 - y
        if min(left, top, right, bottom) > 0:
            ratio = min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom)
            expected += ratio**0.5 * targets[0]["weights"][truth].item()
    assert expected > 1
    assert_close({k: v.item() for k, v in found.items()}, dict.fromkeys(found, expected))
