"""What a classification loss says of itself, and how it keeps one value per class."""

import pytest
import torch

from detloss.classification import SigmoidFocalLoss, SoftmaxCrossEntropy
from detloss.registry import CLASSIFICATION


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("sigmoid_cross_entropy", 0),
        ("balanced_cross_entropy", 0),
        ("sigmoid_focal", 0),
        ("hinge", 0),
        ("mean_squared_error", 0),
        ("softmax_cross_entropy", 1),
        ("multilabel_softmax_cross_entropy", 1),
        ("softmax_focal", 1),
        ("zero_one", 1),
    ],
)
def test_only_a_softmax_needs_a_column_for_the_background(name, columns):
    assert CLASSIFICATION[name].background_columns == columns


def test_only_the_zero_one_loss_cannot_be_trained_on():
    flat = [name for name in CLASSIFICATION.names() if not CLASSIFICATION[name].differentiable]
    assert flat == ["zero_one"]


def test_per_class_values_follow_the_module_but_stay_out_of_checkpoints():
    loss = SigmoidFocalLoss(alpha=[0.25, 0.5], class_weight=[1.0, 2.0])
    assert set(dict(loss.named_buffers())) == {"alpha", "class_weight"}
    assert loss.double().alpha.dtype == torch.float64
    assert loss.state_dict() == {}


def test_per_class_values_are_a_copy_of_the_callers():
    values = torch.tensor([1.0, 2.0])
    loss = SoftmaxCrossEntropy(class_weight=values)
    values[0] = 100
    assert torch.equal(loss.class_weight, torch.tensor([1.0, 2.0]))


def test_rejects_per_class_values_of_the_wrong_rank():
    with pytest.raises(ValueError, match=r"class_weight must have shape \(C,\), got \(1, 2\)"):
        SoftmaxCrossEntropy(class_weight=torch.ones(1, 2))
