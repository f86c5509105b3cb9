"""Whether an anchor is assigned to an object at all: worked by hand."""

import math

import pytest
import torch

import detloss

ANCHORS = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 18], [40, 40, 48, 48]])
TARGET = {"boxes": ANCHORS[:1], "labels": torch.tensor([2])}


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1)])
def test_a_positive_says_yes_and_background_no(shape):
    """IoUs 1, 64 / 144 and 0: positive, ignored, background. At logit ln 3, p is 3/4."""
    criterion = detloss.build(
        {"matcher": {"type": "max_iou"}, "objectness": {"type": "sigmoid_cross_entropy"}}
    )
    logits = torch.full(shape, math.log(3)).requires_grad_()
    output = criterion({"objectness": logits}, [TARGET], anchors=ANCHORS)
    assert output.total.item() == pytest.approx(-math.log(3 / 4) - math.log(1 / 4))
    output.total.backward()
    assert logits.grad.flatten().tolist() == pytest.approx([-0.25, 0, 0.75])


def test_labels_are_not_needed():
    criterion = detloss.build(
        {"matcher": {"type": "max_iou"}, "objectness": {"type": "sigmoid_focal"}}
    )
    inputs = {"objectness": torch.zeros(1, 3)}
    with_labels = criterion(inputs, [TARGET], anchors=ANCHORS)
    without = criterion(inputs, [{"boxes": TARGET["boxes"]}], anchors=ANCHORS)
    assert with_labels.total == without.total > 0


def test_a_sampler_may_choose_by_it():
    """Without a term of classes the hardest negatives are those of the objectness."""
    criterion = detloss.build(
        {
            "matcher": {"type": "max_iou", "negative": 0.5},
            "sampler": {"type": "hard_negative", "ratio": 1.0},
            "objectness": {"type": "sigmoid_cross_entropy"},
        }
    )
    logits = torch.tensor([[0.0, -3.0, 3.0]])
    (match,) = criterion({"objectness": logits}, [TARGET], anchors=ANCHORS).matches
    assert match.negative.tolist() == [False, False, True]
