"""Reduction: the mean of nothing, and of counts that are not the number of elements."""

import pytest
import torch

from detloss.kernels.reduction import check_reduction, check_weight, reduce


@pytest.mark.parametrize(
    ("values", "count", "reduction", "expected"),
    [
        pytest.param([1.0, 3.0], 2, "mean", 2.0, id="the plain mean"),
        pytest.param([1.0, 3.0], 8, "mean", 0.5, id="4 over a count of 8"),
        pytest.param([1.0, 3.0], 0.5, "mean", 8.0, id="a count below one, as class weights give"),
        pytest.param([1.0, 3.0], 8, "sum", 4.0, id="a sum asks for no count"),
        pytest.param([], 0, "mean", 0.0, id="the mean of nothing"),
        pytest.param([0.0, 0.0], 0, "mean", 0.0, id="all ignored"),
    ],
)
@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_values_worked_by_hand(values, count, reduction, expected, kind):
    loss = torch.tensor(values, requires_grad=True)
    result = reduce(loss, kind(count), reduction)
    assert result == expected
    result.backward()
    assert loss.grad.isfinite().all()


def test_none_is_the_loss_itself():
    loss = torch.ones(2)
    assert reduce(loss, 2, "none") is loss


def test_the_losses_of_images_are_sums():
    loss = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert reduce(loss, 2, "image").tolist() == [3, 7]
    assert reduce(loss[:, 0], 2, "image").tolist() == [1, 3]


def test_unknown_reduction():
    with pytest.raises(ValueError, match="one of none, sum, mean, image, got 'avg'"):
        check_reduction("avg")


def test_weight_shapes():
    check_weight(torch.ones(2), torch.Size([2, 3]), elementwise=False)
    check_weight(torch.ones(2, 3), torch.Size([2, 3]), elementwise=True)
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(2, 3\)"):
        check_weight(torch.ones(2, 3), torch.Size([2, 3]), elementwise=False)
    with pytest.raises(ValueError, match=r"shape \(2,\) or \(2, 3\), got \(3,\)"):
        check_weight(torch.ones(3), torch.Size([2, 3]), elementwise=True)
    with pytest.raises(TypeError, match="weight must be a tensor, got list"):
        check_weight([1.0], torch.Size([2, 3]), elementwise=True)
