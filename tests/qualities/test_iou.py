"""IoU of the predicted box with its ground truth."""

from types import SimpleNamespace

import pytest
import torch
from boxgen import random_boxes
from torch.testing import assert_close

from detloss.boxes import OVERLAPS, paired_overlap
from detloss.qualities import IoUQuality

TRUTH = [0.0, 0, 4, 4]


def quality(pred, truth, **options):
    positives = positives_of(torch.tensor([pred]).float(), torch.tensor([truth]).float())
    return IoUQuality(**options)(positives).item()


def positives_of(pred, truth):
    return SimpleNamespace(pred_boxes={"box_regression": pred}.__getitem__, truth_boxes=truth)


@pytest.mark.parametrize(
    ("pred", "expected"),
    [
        pytest.param([0, 0, 4, 4], 1.0, id="the ground truth itself"),
        pytest.param([0, 0, 2, 2], 0.25, id="a quarter of it, inside"),
        pytest.param([2, 0, 6, 4], 1 / 3, id="half beside: 8 of 24"),
        pytest.param([4, 0, 8, 4], 0.0, id="side by side"),
        pytest.param([9, 9, 12, 12], 0.0, id="far off"),
        pytest.param([4, 4, 0, 0], 0.0, id="inverted is empty, also where it is the same corners"),
        pytest.param([4, 0, 0, 4], 0.0, id="inverted in x alone"),
        pytest.param([1, 1, 1, 1], 0.0, id="a point inside"),
        pytest.param([1, 0, 1, 4], 0.0, id="a line inside"),
    ],
)
def test_worked_by_hand(pred, expected):
    assert quality(pred, TRUTH) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("truth", [[1, 1, 1, 1], [3, 3, 1, 1], [0, 1, 4, 1]])
def test_a_ground_truth_without_area_is_answered_by_nothing(truth):
    assert quality(truth, truth) == quality(TRUTH, truth) == 0


@pytest.mark.parametrize(
    ("kind", "pred", "expected"),
    [
        pytest.param("giou", [0, 0, 2, 2], 0.25, id="giou: inside there is no empty hull"),
        pytest.param("giou", [2, 2, 6, 6], 0.0, id="giou: 4/28 - 8/36 is below 0"),
        pytest.param("diou", [0, 0, 2, 2], 0.25 - 2 / 32, id="diou: centres sqrt 2 apart, of 32"),
        pytest.param("ciou", [0, 0, 2, 2], 0.25 - 2 / 32, id="ciou: of the same shape"),
        pytest.param("diou", [9, 9, 12, 12], 0.0, id="diou: below 0"),
        pytest.param("ciou", [4, 4, 0, 0], 0.0, id="ciou: inverted"),
    ],
)
def test_other_overlaps(kind, pred, expected):
    assert quality(pred, TRUTH, kind=kind) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_is_the_overlap_where_that_is_positive(kind):
    pred, truth = random_boxes(500, seed=1), random_boxes(500, seed=2)
    found = IoUQuality(kind=kind)(positives_of(pred, truth))
    overlap = paired_overlap(pred, truth, kind=kind)
    assert (overlap > 0).any()
    assert (overlap <= 0).any()
    assert_close(found, torch.where(overlap > 0, overlap, 0))


def test_rejects_a_kind():
    known = " or ".join(map(repr, sorted(OVERLAPS))).replace(" or ", ", ", len(OVERLAPS) - 2)
    with pytest.raises(ValueError, match=f"kind: expected {known}, got 'overlap'"):
        IoUQuality(kind="overlap")


@pytest.mark.parametrize(
    ("pred", "expected"),
    [
        pytest.param([0, 0, 2, 2], 0.25, id="above the floor"),
        pytest.param([9, 9, 12, 12], 0.125, id="below it"),
    ],
)
def test_a_floor(pred, expected):
    assert quality(pred, TRUTH, floor=0.125) == expected


def test_boxes_of_another_prediction():
    predicted = {"box_regression": torch.tensor([TRUTH]), "refined": torch.tensor([TRUTH]) / 2}
    positives = SimpleNamespace(
        pred_boxes=predicted.__getitem__, truth_boxes=predicted["box_regression"]
    )
    refined = IoUQuality(reads="refined")
    assert refined(positives).item() == 0.25
    assert refined.needs == {"refined"}
    assert IoUQuality().needs == {"box_regression"}
