"""What a matcher says, and what it asks of its inputs."""

import dataclasses

import pytest
import torch

from detloss.matchers import Matches
from detloss.matchers.base import check_match_inputs


def test_negative_is_the_rest():
    matches = Matches(
        target_index=torch.tensor([2, 0, 0, 0]),
        positive=torch.tensor([True, False, False, False]),
        ignored=torch.tensor([False, True, False, False]),
    )
    assert matches.negative.tolist() == [False, False, True, True]


def test_matches_are_not_reassigned():
    no = torch.zeros(2, dtype=torch.bool)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Matches(no.long(), no, no).positive = ~no


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(("anchors", "truths"), [(3, 2), (0, 2), (3, 0), (0, 0)])
def test_any_number_of_boxes_passes(anchors, truths, dtype):
    gt_boxes = torch.zeros(truths, 4, dtype=dtype)
    check_match_inputs(torch.zeros(anchors, 4), gt_boxes, None)
    check_match_inputs(torch.zeros(anchors, 4), gt_boxes, torch.zeros(truths, dtype=torch.bool))


@pytest.mark.parametrize(
    ("anchors", "gt_boxes", "gt_ignore", "error", "message"),
    [
        pytest.param(
            torch.zeros(3, 4),
            [[0.0, 0.0, 1.0, 1.0]],
            None,
            TypeError,
            "gt_boxes must be a tensor, got list",
            id="a list of boxes",
        ),
        pytest.param(
            torch.zeros(3, 4).long(),
            torch.zeros(2, 4),
            None,
            TypeError,
            r"anchors must be floating point, got torch\.int64",
            id="integer anchors",
        ),
        pytest.param(
            torch.zeros(3, 2),
            torch.zeros(2, 4),
            None,
            ValueError,
            r"anchors must have shape \(\.\.\., 4\), got \(3, 2\)",
            id="points as anchors",
        ),
        pytest.param(
            torch.zeros(8, 3, 4),
            torch.zeros(2, 4),
            None,
            ValueError,
            r"anchors must have shape \(N, 4\), got \(8, 3, 4\)",
            id="anchors of a batch",
        ),
        pytest.param(
            torch.zeros(3, 4),
            torch.zeros(4),
            None,
            ValueError,
            r"gt_boxes must have shape \(N, 4\), got \(4,\)",
            id="one box without its axis",
        ),
        pytest.param(
            torch.zeros(3, 4),
            torch.zeros(2, 4),
            torch.tensor([0, 1]),
            TypeError,
            r"gt_ignore must be boolean, got torch\.int64",
            id="iscrowd as COCO stores it",
        ),
        pytest.param(
            torch.zeros(3, 4),
            torch.zeros(2, 4),
            torch.zeros(3, dtype=torch.bool),
            ValueError,
            r"gt_ignore must have shape \(2,\), got \(3,\)",
            id="one flag an anchor",
        ),
    ],
)
def test_rejects(anchors, gt_boxes, gt_ignore, error, message):
    with pytest.raises(error, match=message):
        check_match_inputs(anchors, gt_boxes, gt_ignore)
