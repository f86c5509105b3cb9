"""How well the predicted box of a positive fits: worked by hand."""

import math

import pytest
import torch

import detloss


def test_positives_learn_the_iou_of_their_own_box():
    """Zero deltas give the anchor, half of the object: IoU 1/2, and at p = 1/2 the loss is ln 2."""
    anchors = torch.tensor([[0.0, 0, 8, 8], [40, 40, 48, 48]])
    target = {"boxes": torch.tensor([[0.0, 0, 8, 16]]), "labels": torch.tensor([0])}
    criterion = detloss.build(
        {"matcher": {"type": "max_iou"}, "iou_score": {"type": "sigmoid_cross_entropy"}}
    )
    regression = torch.zeros(1, 2, 4, requires_grad=True)
    score = torch.zeros(1, 2, requires_grad=True)
    predictions = {"iou_score": score, "box_regression": regression}
    output = criterion(predictions, [target], anchors=anchors)
    assert output.total.item() == pytest.approx(math.log(2))
    output.total.backward()
    assert score.grad.tolist() == [[0, 0]]
    assert regression.grad is None, "the IoU is a constant"
