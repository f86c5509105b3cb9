"""A term over the sum of its row weights."""

import pytest
import torch
from scenes import build, grid_anchors, random_predictions, random_targets
from term_rows import term_rows
from torch.testing import assert_close

import detloss
from detloss.normalizers import RowWeightsNormalizer

WEIGHTS = [[0.5, 2.0, 0.0, 1.0], [0.25, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, 3.75, id="the sum over the batch"),
        pytest.param({"per": "image"}, [7.0, 2.0], id="3.5 and at least 1, of two images"),
        pytest.param({"per": "image", "floor": "none"}, [7.0, 0.5], id="3.5 and 0.25, of two"),
        pytest.param({"per": "images"}, 4.5, id="3.5 and at least 1"),
        pytest.param({"per": "level"}, [2.75, 1.0], id="the first two anchors are a level"),
    ],
)
def test_worked_by_hand(options, expected):
    rows = term_rows([3, 1], anchors=4, row_weights=WEIGHTS, level_sizes=[2, 2])
    assert RowWeightsNormalizer(**options)(rows).tolist() == expected


def outputs(normalizer, **box):
    """Of a criterion whose box loss is weighed, and of the same without a divisor."""
    anchors = grid_anchors()
    criterion = build(
        box={"type": "giou", "weigh_by": "centerness", "normalizer": normalizer, **box}
    )
    targets = random_targets([2, 1])
    targets[0]["weights"] = torch.tensor([0.5, 3.0])
    inputs = random_predictions(2, len(anchors)), targets
    return (
        criterion(*inputs, anchors=anchors, level_sizes=[32, 32]),
        criterion(*inputs, anchors=anchors, level_sizes=[32, 32], normalizer=1),
    )


def test_it_makes_a_term_a_weighted_mean():
    divided, undivided = outputs({"type": "row_weights", "floor": "none"})
    assert 0 < divided.divisors["box"] < undivided.matches[0].positive.sum() * 3
    assert_close(divided.terms["box"], undivided.terms["box"] / divided.divisors["box"])


def test_a_row_alone_loses_the_same_whatever_it_weighs():
    """An object 2 beside the centre of its anchor, 16 wide: the centerness is sqrt(6 / 10)."""
    anchors = grid_anchors()
    target = {"boxes": anchors[:1] + torch.tensor([2.0, 0, 2, 0]), "labels": torch.tensor([1])}
    predictions = random_predictions(1, len(anchors))
    weighed = {
        "weigh_by": "centerness",
        "normalizer": {"type": "row_weights", "floor": "none"},
    }
    mean, alone = (
        build(box={"type": "l1", **options})(predictions, [target], anchors=anchors)
        for options in (weighed, {})
    )
    assert alone.matches[0].positive.sum() == 1
    assert_close(mean.divisors["box"].item(), 0.6**0.5)
    assert_close(mean.terms["box"], alone.terms["box"])


def test_the_weights_of_the_term_and_its_levels_are_no_weights_of_rows():
    normalizer = {"type": "row_weights"}
    plain, _ = outputs(normalizer)
    scaled, _ = outputs(normalizer, weight=3.0, level_weights=[2.0, 2.0])
    assert scaled.divisors["box"] == plain.divisors["box"]
    assert_close(scaled.terms["box"], 6 * plain.terms["box"])


def test_ground_truths_of_twice_the_weight_divide_by_twice_as_much():
    anchors = grid_anchors()
    criterion = build(
        box={
            "type": "giou",
            "weigh_by": "centerness",
            "normalizer": {"type": "row_weights", "floor": "none"},
        }
    )
    predictions, targets = random_predictions(2, len(anchors)), random_targets([2, 1])
    plain = criterion(predictions, targets, anchors=anchors)
    for target in targets:
        target["weights"] = torch.full((len(target["boxes"]),), 2.0)
    twice = criterion(predictions, targets, anchors=anchors)
    assert_close(twice.divisors["box"], 2 * plain.divisors["box"])
    assert_close(twice.terms["box"], plain.terms["box"])


def test_a_term_without_weights_has_no_mean_of_them():
    message = (
        "box: normalizer row_weights divides by the factors of the rows, and the term has none; "
        "give it weigh_by"
    )
    with pytest.raises(detloss.ConfigError, match=message):
        build(box={"type": "giou", "normalizer": {"type": "row_weights"}})
