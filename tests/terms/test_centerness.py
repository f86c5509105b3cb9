"""How near a positive lies to the centre of its object: worked by hand."""

import math

import pytest
import torch

import detloss


def test_positives_learn_their_centerness():
    """The centre (4, 4) of the anchor lies 4 from two sides and 12 from the others: 1/3."""
    anchors = torch.tensor([[0.0, 0, 8, 8], [40, 40, 48, 48]])
    target = {"boxes": torch.tensor([[0.0, 0, 16, 16]]), "labels": torch.tensor([0])}
    criterion = detloss.build(
        {
            "matcher": {"type": "max_iou", "positive": 0.25, "negative": 0.2},
            "centerness": {"type": "sigmoid_cross_entropy"},
        }
    )
    logits = torch.full((1, 2), -math.log(2)).requires_grad_()  # p = 1/3: as good as it gets
    output = criterion({"centerness": logits}, [target], anchors=anchors)
    entropy = -math.log(1 / 3) / 3 - math.log(2 / 3) * 2 / 3
    assert output.total.item() == pytest.approx(entropy)
    output.total.backward()
    assert logits.grad.tolist()[0] == pytest.approx([0, 0], abs=1e-7)


def test_a_label_of_one_is_asked_for():
    config = {"matcher": {"type": "max_iou"}}
    plain = detloss.build(config | {"centerness": {"type": "sigmoid_cross_entropy"}})
    one = detloss.build(config | {"centerness": {"type": "sigmoid_cross_entropy", "label": "one"}})
    assert plain.terms["centerness"].label.type_name == "centerness"
    assert one.terms["centerness"].label is None
    assert one.config()["centerness"]["label"] == "one"
    assert detloss.build(one.config()).terms["centerness"].label is None
