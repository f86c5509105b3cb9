"""0-1 loss. What holds for every registered loss is in test_contract.py."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from detloss.classification import ZeroOneLoss, zero_one_loss

THREE_QUARTERS = [math.log(3), 0.0]  # probabilities 3/4 and 1/4


@pytest.mark.parametrize(
    ("logits", "target", "tolerance", "expected"),
    [
        pytest.param([2.0, 1.0], 0, None, 0.0, id="right"),
        pytest.param([2.0, 1.0], 1, None, 1.0, id="wrong"),
        pytest.param([1.0, 1.0], 0, None, 0.0, id="a tie: the first is the answer"),
        pytest.param([1.0, 1.0], 1, None, 1.0, id="a tie: the second is not"),
        pytest.param([1.0, 2.0], -1, None, 0.0, id="ignored"),
        pytest.param(THREE_QUARTERS, 0, 0.3, 0.0, id="short by 1/4, within 0.3"),
        pytest.param(THREE_QUARTERS, 0, 0.2, 1.0, id="short by 1/4, beyond 0.2"),
        pytest.param(THREE_QUARTERS, 1, 0.8, 0.0, id="short by 3/4, within 0.8 though not argmax"),
        pytest.param([0.0, 0.0], 0, 0.5, 1.0, id="short by exactly the tolerance is wrong"),
        pytest.param([9.0, 0.0], 0, 0.0, 1.0, id="tolerance 0: nobody is right"),
    ],
)
def test_values_worked_by_hand(logits, target, tolerance, expected):
    loss = zero_one_loss(torch.tensor([logits]), torch.tensor([target]), tolerance=tolerance)
    assert_close(loss, torch.tensor([expected]))


@given(st.integers(0, 2**31), st.integers(1, 5))
def test_mean_is_the_error_rate_of_the_rows_not_ignored(seed, columns):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(20, columns, generator=generator)
    index = torch.randint(-1, columns, (20,), generator=generator)
    rows = zip(logits.tolist(), index.tolist(), strict=True)
    wrong = [row.index(max(row)) != true for row, true in rows if true != -1]
    expected = sum(wrong) / len(wrong) if wrong else 0.0
    assert_close(ZeroOneLoss()(logits, index), torch.tensor(expected))


@pytest.mark.parametrize("tolerance", [None, 0.3])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_carries_no_gradient(tolerance, reduction):
    logits = torch.randn(3, 4, requires_grad=True)
    index = torch.tensor([0, 1, -1])
    loss = ZeroOneLoss(tolerance=tolerance, reduction=reduction)(logits, index)
    assert not loss.requires_grad
    assert not ZeroOneLoss.differentiable


@pytest.mark.parametrize(
    ("background_index", "target"),
    [
        pytest.param(-1, [2, 0, 1], id="last: an index is its column"),
        pytest.param(0, [1, 2, 0], id="first: class 0 is column 1, background 2 is column 0"),
    ],
)
def test_background_index_says_where_the_columns_are(background_index, target):
    logits = torch.eye(3)[[2, 0, 1]]  # answers: column 2, 0, 1
    loss = zero_one_loss(logits, torch.tensor(target), background_index=background_index)
    assert torch.equal(loss, torch.zeros(3))


def test_probabilities_share_the_loss():
    """Answer 0: wrong for the 0.3 that is class 1."""
    loss = zero_one_loss(torch.tensor([[2.0, 1.0]]), torch.tensor([[0.7, 0.3]]))
    assert_close(loss, torch.tensor([0.3]))


def test_class_weight_weighs_the_mean():
    """Classes 0 (right, weight 1) and 1 (wrong, weight 3)."""
    loss = ZeroOneLoss(class_weight=[1.0, 3.0])(
        torch.tensor([[2.0, 1], [2, 1]]), torch.tensor([0, 1])
    )
    assert_close(loss, torch.tensor(0.75))


@pytest.mark.parametrize("tolerance", [-0.1, 1.5])
def test_rejects_a_tolerance_outside_0_to_1(tolerance):
    with pytest.raises(ValueError, match=rf"tolerance must be in \[0, 1\], got {tolerance}"):
        zero_one_loss(torch.zeros(1, 2), torch.tensor([0]), tolerance=tolerance)
