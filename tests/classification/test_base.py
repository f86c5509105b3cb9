"""What a classification loss says of itself, and how it keeps one value per class."""

import pytest
import torch

from detloss import build_part
from detloss.classification import SigmoidFocalLoss, SoftmaxCrossEntropy
from detloss.registry import CLASSIFICATION


@pytest.mark.parametrize("name", CLASSIFICATION.names())
def test_only_a_softmax_needs_a_column_for_the_background(name):
    """Its classes share one probability: the same number added to all logits changes nothing."""
    loss = build_part("classification", {"type": name})
    logits = torch.tensor([[0.25, 0.5, -0.75]], dtype=torch.float64)
    target = torch.tensor([2])  # not the largest, so that a metric counts it wrong
    shared = torch.equal(loss(logits + 0.125, target), loss(logits, target))
    assert loss.background_columns == int(shared)


@pytest.mark.parametrize("name", CLASSIFICATION.names())
def test_what_has_no_gradient_says_so(name):
    loss = build_part("classification", {"type": name})
    logits = torch.zeros(1, 3, requires_grad=True)
    assert loss(logits, torch.tensor([2])).requires_grad == loss.differentiable


def test_per_class_values_follow_the_module_but_stay_out_of_checkpoints():
    loss = SigmoidFocalLoss(alpha=[0.25, 0.5], class_weight=[1.0, 2.0])
    assert set(dict(loss.named_buffers())) == {"alpha", "class_weight"}
    on_meta = loss.bfloat16().to("meta")
    assert on_meta.alpha.is_meta
    assert on_meta.alpha.dtype == torch.float32
    assert loss.state_dict() == {}


def test_per_class_values_are_a_copy_of_the_callers():
    values = torch.tensor([1.0, 2.0])
    loss = SoftmaxCrossEntropy(class_weight=values)
    values[0] = 100
    assert torch.equal(loss.class_weight, torch.tensor([1.0, 2.0]))


def test_rejects_per_class_values_of_the_wrong_rank():
    with pytest.raises(ValueError, match=r"class_weight must have shape \(C,\), got \(1, 2\)"):
        SoftmaxCrossEntropy(class_weight=torch.ones(1, 2))
