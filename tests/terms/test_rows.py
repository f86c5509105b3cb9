"""Rows of a term: what weighs them, and what a normalizer may count of them."""

from dataclasses import replace

import pytest
import torch
from scenes import CLASSES, build
from torch.testing import assert_close

from detloss.batch import MatchedBatch
from detloss.inputs import Inputs
from detloss.matchers import Matches
from detloss.qualities import CenternessQuality
from detloss.tensors import without_host_sync
from detloss.terms import Rows

# Two images of three anchors. Image 0: two positives of its two objects, one ignored anchor.
# Image 1: one positive, two background.
ANCHORS = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [40, 40, 48, 48]])
TARGETS = [
    {
        "boxes": torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 16]]),
        "labels": torch.tensor([2, 1]),
        "weights": torch.tensor([1.0, 3.0]),
    },
    {"boxes": torch.tensor([[40.0, 40, 48, 48]]), "labels": torch.tensor([0])},
]
NEVER = torch.zeros(3, dtype=torch.bool)
MATCHES = [
    Matches(
        target_index=torch.tensor([0, 1, 0]),
        positive=torch.tensor([True, True, False]),
        ignored=torch.tensor([False, False, True]),
    ),
    Matches(
        target_index=torch.zeros(3, dtype=torch.long),
        positive=torch.tensor([False, False, True]),
        ignored=NEVER,
    ),
]


def rows_of(
    term="classification",
    *,
    matches=MATCHES,
    level_sizes=None,
    divides_levels=False,
    **options,
):
    config = {"type": {"classification": "sigmoid_focal", "box": "giou"}[term], **options}
    criterion = build(**{term: config})
    inputs = Inputs(
        {"class_logits": torch.zeros(2, 3, CLASSES), "box_regression": torch.zeros(2, 3, 4)},
        TARGETS,
        [ANCHORS, ANCHORS],
        level_sizes,
    )
    return Rows(
        criterion.terms[term],
        MatchedBatch(inputs, matches, criterion.coder),
        None,
        divides_levels=divides_levels,
    )


def test_counts_worked_by_hand():
    rows = rows_of()
    assert rows.images == 2
    assert rows.positive.sum(1).tolist() == [2, 1]
    assert rows.counted.sum(1).tolist() == [2, 3]
    assert rows.ground_truths.tolist() == [2, 1]
    assert rows.pairs.sum(1).tolist() == [2, 1]
    assert rows.rows.sum(1).tolist() == [2, 3]
    assert rows.columns == CLASSES
    assert rows.target_scores.tolist() == [[1, 3, 0], [0, 0, 1]]
    assert rows.row_weights.tolist() == [[1, 3, 0], [1, 1, 1]]


def test_rows_over_positives():
    rows = rows_of("box")
    assert rows.rows.sum(1).tolist() == [2, 1]
    assert rows.columns == 4
    assert rows.row_weights.tolist() == [[1, 3, 0], [0, 0, 1]]


def test_a_quality_weighs_a_row_beside_its_ground_truth():
    """Centerness: anchor 1's centre (12, 4) in [8, 0, 16, 16] is 4 from the top, 12 from below."""
    rows = rows_of("box", weigh_by="centerness")
    middle = (4 / 12) ** 0.5
    assert_close(rows.row_weights, torch.tensor([[1.0, 3 * middle, 0], [0, 0, 1]]))
    assert_close(rows.weights(torch.tensor(2.0)), torch.tensor([0.5, 1.5 * middle, 0.5]))


@pytest.mark.parametrize(
    ("divisor", "expected"),
    [
        pytest.param(2.0, [[0.5, 1.5, 0.5], [0.5, 0.5, 0.5]], id="of the batch"),
        pytest.param([2.0, 4.0], [[0.5, 1.5, 0.5], [0.25, 0.25, 0.25]], id="of each image"),
        pytest.param(0.0, [[0, 0, 0], [0, 0, 0]], id="a count of 0 without a floor: nothing"),
    ],
)
def test_weights_of_all_anchors(divisor, expected):
    assert_close(rows_of().weights(torch.tensor(divisor)), torch.tensor(expected).float())


def test_level_weights_and_divisors_of_levels():
    rows = rows_of(level_sizes=[2, 1], level_weights=[1.0, 10.0])
    expected = [[0.5, 1.5, 5.0], [0.5, 0.5, 5.0]]
    assert_close(rows.weights(torch.tensor(2.0)), torch.tensor(expected))
    of_levels = rows_of(level_sizes=[2, 1], divides_levels=True)
    expected = [[0.5, 1.5, 1.0], [0.5, 0.5, 1.0]]
    assert_close(of_levels.weights(torch.tensor([2.0, 1.0])), torch.tensor(expected))


def test_levels_are_asked_for():
    rows = rows_of(level_weights=[1.0, 2.0])
    with pytest.raises(ValueError, match="level_sizes must be given where a part asks for levels"):
        rows.weights(torch.tensor(1.0))
    other = rows_of(level_weights=[1.0, 2.0], level_sizes=[3])
    with pytest.raises(ValueError, match="level_sizes must be of 2 levels.*got 1"):
        other.weights(torch.tensor(1.0))


@pytest.mark.parametrize("term", ["classification", "box"])
def test_without_a_host_sync_the_counts_are_the_same(term):
    options = {"weigh_by": "centerness"} if term == "box" else {}
    names = ("positive", "pairs", "rows", "target_scores", "row_weights")
    rows = rows_of(term, **options)
    expected = [getattr(rows, name) for name in names]
    expected_weights = rows.weights(torch.tensor(2.0))
    with without_host_sync():
        rows = rows_of(term, **options)
        assert rows.batch.index is None
        assert_close([getattr(rows, name) for name in names], expected)
        weights = rows.weights(torch.tensor(2.0))
    if term == "box":
        assert (weights[~rows.batch.is_positive] == 0).all()
        weights = weights[rows.batch.is_positive]
    assert_close(weights, expected_weights)


def test_an_anchor_may_stand_in_several_pairs():
    """Anchor 0 is assigned to both objects; the map names the last one."""
    pairs = torch.tensor([[0, 0], [0, 1], [1, 1]])
    first = Matches(torch.tensor([1, 1, 0]), MATCHES[0].positive, MATCHES[0].ignored, pairs=pairs)
    second = Matches(
        MATCHES[1].target_index,
        MATCHES[1].positive,
        MATCHES[1].ignored,
        pairs=torch.tensor([[2, 0]]),
    )
    rows = rows_of("box", matches=[first, second])
    assert rows.pairs.tolist() == [[2, 1, 0], [0, 0, 1]]
    assert rows.batch.truth.tolist() == [0, 1, 1, 2]
    assert rows.weights(torch.tensor(1.0)).tolist() == [1, 3, 3, 1]
    assert rows.row_weights.tolist() == [[4, 3, 0], [0, 0, 1]]
    flagged = replace(
        second, pairs=torch.tensor([[0, 1], [2, 0]]), is_pair=torch.tensor([False, True])
    )
    rows = rows_of("box", matches=[first, flagged])
    assert rows.pairs.tolist() == [[2, 1, 0], [0, 0, 1]]
    assert rows.weights(torch.tensor(1.0)).tolist() == [1, 3, 3, 0, 1]
    assert rows.row_weights.tolist() == [[4, 3, 0], [0, 0, 1]]
    for image, mixed in enumerate([[MATCHES[0], second], [first, MATCHES[1]]]):
        message = rf"matches\[{image}\] must have pairs like the others, got None"
        with pytest.raises(ValueError, match=message):
            rows_of("box", matches=mixed).weights(torch.tensor(1.0))


def test_a_weight_of_0_silences_a_quality_that_is_not_a_number():
    """A product would be NaN, and with it the count."""

    class Broken(CenternessQuality):
        def forward(self, positives):
            values = super().forward(positives)
            return torch.where(positives.anchors[:, 0] == 8, torch.nan, values)

    silent = [{**TARGETS[0], "weights": torch.tensor([1.0, 0.0])}, TARGETS[1]]
    criterion = build(box={"type": "giou", "weigh_by": "centerness"})
    term, classifier = criterion.terms["box"], criterion.terms["classification"]
    term.weigh_by = classifier.label = Broken()
    inputs = Inputs({"box_regression": torch.zeros(2, 3, 4)}, silent, [ANCHORS, ANCHORS])
    rows = Rows(term, MatchedBatch(inputs, MATCHES, criterion.coder), classifier)
    assert rows.row_weights.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert rows.target_scores.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert rows.weights(torch.tensor(1.0)).tolist() == [1, 0, 1]


def test_a_divisor_too_small_to_divide_by_makes_the_term_0():
    assert (rows_of().weights(torch.tensor(1e-41)) == 0).all()


def test_class_weights_of_a_softmax_are_factors_of_its_rows():
    """DETR's: classes weigh 1, background 0.1; positives weigh what their truths do, too."""
    criterion = build(
        classification={
            "type": "softmax_cross_entropy",
            "class_weight": [1.0, 1.0, 5.0, 0.1],
            "normalizer": {"type": "row_weights"},
        }
    )
    inputs = Inputs({"class_logits": torch.zeros(2, 3, CLASSES + 1)}, TARGETS, [ANCHORS] * 2)
    rows = Rows(
        criterion.terms["classification"], MatchedBatch(inputs, MATCHES, criterion.coder), None
    )
    assert_close(rows.row_weights, torch.tensor([[5.0, 3, 0], [0.1, 0.1, 1]]))
    assert rows.weights(torch.tensor(1.0)).tolist() == [[1, 3, 1], [1, 1, 1]]
