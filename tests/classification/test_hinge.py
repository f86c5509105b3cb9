"""Hinge loss. What holds for every registered loss is in test_contract.py."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from detloss.classification import HingeLoss, hinge_loss

LOGITS = st.lists(st.floats(-5, 5), min_size=1, max_size=6)


def value_and_gradient(logits, target, **options):
    logits = logits.detach().requires_grad_()
    value = hinge_loss(logits, target, **options)
    value.sum().backward()
    return value.detach(), logits.grad


@pytest.mark.parametrize(
    ("logit", "label", "expected"),
    [
        pytest.param(0.0, 1.0, 1.0, id="on the boundary: the whole margin is missing"),
        pytest.param(0.25, 1.0, 0.75, id="right, 3/4 of the margin missing"),
        pytest.param(1.0, 1.0, 0.0, id="at the margin"),
        pytest.param(7.0, 1.0, 0.0, id="beyond the margin nothing is gained"),
        pytest.param(-2.0, 1.0, 3.0, id="wrong: the margin and the way back"),
        pytest.param(-2.0, -1.0, 0.0, id="a no, beyond the margin"),
        pytest.param(0.5, -1.0, 1.5, id="a no, wrong by 1/2"),
        pytest.param(0.5, 0.0, 1.0, id="undecided: the mean of 1/2 and 3/2"),
        pytest.param(3.0, 0.5, 1.0, id="3/4 yes, 1/4 no: a quarter of 4"),
    ],
)
def test_values_worked_by_hand(logit, label, expected):
    loss = hinge_loss(torch.tensor([[logit]]), torch.tensor([[label]]))
    assert_close(loss, torch.tensor([[expected]]))


@given(LOGITS, st.sampled_from([-1.0, 1.0]))
def test_value_and_gradient_match_the_definition(logits, label):
    x = torch.tensor([logits], dtype=torch.float64)
    loss, gradient = value_and_gradient(x, torch.full_like(x, label))
    expected = [max(0.0, 1 - label * value) for value in logits]
    derivative = [-label if label * value < 1 else 0.0 for value in logits]
    assert_close(loss, torch.tensor([expected], dtype=torch.float64))
    assert_close(gradient, torch.tensor([derivative], dtype=torch.float64))


def test_no_gradient_at_the_margin_itself():
    _, gradient = value_and_gradient(torch.tensor([[1.0, -1.0]]), torch.tensor([[1.0, -1.0]]))
    assert torch.equal(gradient, torch.zeros(1, 2))


@given(LOGITS, st.floats(-1, 1))
def test_a_label_between_weighs_the_two_answers(logits, label):
    x = torch.tensor([logits], dtype=torch.float64)
    yes, no = (hinge_loss(x, torch.full_like(x, sign)) for sign in (1.0, -1.0))
    loss = hinge_loss(x, torch.full_like(x, label))
    assert_close(loss, (1 + label) / 2 * yes + (1 - label) / 2 * no)


def test_class_index_boolean_and_signed_labels_agree():
    logits = torch.randn(4, 3)
    index = torch.tensor([0, 2, 3, 1])  # 3 = C is background: no to every class
    yes = torch.tensor([[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]]).bool()
    expected = value_and_gradient(logits, index)
    assert_close(value_and_gradient(logits, yes), expected)
    for dtype in (torch.float32, torch.int64, torch.int8):
        signed = torch.where(yes, 1, -1).to(dtype)
        assert_close(value_and_gradient(logits, signed), expected)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_labels_are_not_rounded_to_the_precision_of_the_logits(half):
    logits = torch.tensor([[0.3, -0.7]]).to(half)
    labels = torch.tensor([[-0.3, 0.777]])
    assert_close(hinge_loss(logits, labels), hinge_loss(logits.float(), labels))


def test_ignored_rows_are_exactly_zero_and_leave_the_mean():
    logits = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    index = torch.tensor([-1, 0])
    loss, gradient = value_and_gradient(logits, index)
    assert_close(loss, torch.tensor([[0.0, 0.0], [0.5, 1.5]]))
    assert_close(gradient, torch.tensor([[0.0, 0.0], [-1.0, 1.0]]))
    assert_close(HingeLoss()(logits, index), torch.tensor(1.0))


def test_class_weight_scales_each_column():
    loss = hinge_loss(torch.zeros(1, 2), torch.tensor([0]), class_weight=[2.0, 3.0])
    assert_close(loss, torch.tensor([[2.0, 3.0]]))


def test_rejects_class_weight_of_the_wrong_length():
    with pytest.raises(ValueError, match=r"class_weight must have shape \(2,\), .* got \(1,\)"):
        hinge_loss(torch.zeros(1, 2), torch.tensor([0]), class_weight=[1.0])


def test_rejects_logits_that_are_no_tensor():
    with pytest.raises(TypeError, match="logits must be a tensor, got list"):
        hinge_loss([[0.5, 1.0]], torch.tensor([[1.0, -1.0]]))
