"""Generalized IoU loss. What holds for every registered loss is in test_contract.py."""

import pytest
import torch
from boxgen import box_pairs, random_boxes
from exact import giou
from hypothesis import given
from torch.testing import assert_close
from torchvision.ops import generalized_box_iou_loss

from detloss.regression import GIoULoss, giou_loss, iou_loss

UNIT = [0.0, 0.0, 1.0, 1.0]


def value_and_gradient(pred, target, loss=giou_loss, **options):
    pred = pred.detach().requires_grad_()
    value = loss(pred, target, **options)
    value.sum().backward()
    return value.detach(), pred.grad


@pytest.mark.parametrize(
    ("pred", "expected"),
    [
        pytest.param(UNIT, 0.0, id="identical"),
        pytest.param([-1.0, -1, 1, 1], 0.75, id="quarter inside: IoU 1/4, hull = union"),
        pytest.param([0.5, 0, 1.5, 1], 2 / 3, id="half shifted in x: IoU 1/3, hull = union"),
        pytest.param([0.5, 0.5, 1.5, 1.5], 6 / 7 + 2 / 9, id="diagonal: 1/7; hull 9/4, union 7/4"),
        pytest.param([0.0, 1, 1, 2], 1.0, id="side by side: IoU 0, hull = union"),
        pytest.param([1.0, 1, 2, 2], 1.5, id="corner to corner: hull 4, union 2"),
        pytest.param([3.0, 0, 4, 1], 1.5, id="two apart: hull 4, union 2"),
        pytest.param([99.0, 0, 100, 1], 1.98, id="far apart: 1 + 98/100, towards 2"),
        pytest.param([0.5, 0.5, 0.5, 0.5], 1.0, id="a point inside: hull = union"),
        pytest.param([1.0, 1, 0, 0], 1.0, id="inverted counts as empty: hull = union = target"),
    ],
)
def test_values_worked_by_hand(pred, expected):
    assert_close(giou_loss(torch.tensor(pred), torch.tensor(UNIT)), torch.tensor(expected))


def reference_giou(a, b):
    """Algorithm 1 of the paper on Python floats, one pair at a time."""
    overlap_width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    overlap_height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    overlap = overlap_width * overlap_height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return overlap / union - (hull - union) / hull


@given(box_pairs())
def test_every_pair_matches_the_paper(pair):
    pred, target = pair
    expected = [
        1 - reference_giou(p, t) for p, t in zip(pred.tolist(), target.tolist(), strict=True)
    ]
    assert_close(giou_loss(pred, target), torch.tensor(expected, dtype=torch.float64))


@given(box_pairs())
def test_value_and_gradient_equal_torchvision_on_well_formed_boxes(pair):
    pred, target = pair
    expected = value_and_gradient(pred, target, generalized_box_iou_loss, eps=0.0)
    assert_close(value_and_gradient(pred, target), expected, rtol=1e-10, atol=1e-12)


@given(box_pairs())
def test_symmetric_bounded_and_free_of_unit(pair):
    pred, target = pair
    loss = giou_loss(pred, target)
    assert ((loss >= 0) & (loss < 2)).all()
    assert (loss >= iou_loss(pred, target) - 1e-12).all()  # GIoU is a lower bound of IoU
    assert_close(loss, giou_loss(target, pred))
    assert_close(loss, giou_loss(pred * 1e-3, target * 1e-3))


@given(box_pairs())
def test_identical_boxes_are_exactly_zero(pair):
    assert torch.equal(giou_loss(pair[0], pair[0]), torch.zeros(len(pair[0])).double())


def test_gradient_apart_worked_by_hand():
    """Loss ``2 - union / hull``; union 4, hull 4 * 3, the target higher than the prediction.

    Every edge moves the union: by 1 outwards, so a step down the gradient grows the box. The far
    edge x2 also moves the hull, by 3 outwards: ``-1 / 12 + 4 * 3 / 12^2 = 0``.
    """
    pred, target = torch.tensor([[3.0, 0, 4, 1]]), torch.tensor([[0.0, -1, 1, 2]])
    _, gradient = value_and_gradient(pred, target)
    assert_close(gradient, torch.tensor([[1 / 12, 1 / 12, 0.0, -1 / 12]]))


@given(box_pairs())
def test_moving_a_disjoint_box_straight_at_the_other_lowers_the_loss(pair):
    pred, target = pair
    apart = torch.tensor([300.0, 0.0, 300.0, 0.0], dtype=torch.float64)
    step = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    near, far = giou_loss(pred + apart, target), giou_loss(pred + apart + step, target)
    assert (near < far).all()
    assert torch.equal(iou_loss(pred + apart, target), iou_loss(pred + apart + step, target))


def test_every_coordinate_of_an_overlapping_box_has_a_gradient():
    target = random_boxes(50, seed=3)
    pred = target + torch.tensor([0.3, -0.2, -0.1, 0.4], dtype=torch.float64)
    _, gradient = value_and_gradient(pred, target)
    assert (gradient != 0).all()


def test_a_target_side_below_sqrt_eps_counts_as_that_long():
    """Corner to corner, the target 2 x 2 in place of 1/2: union 4 1/4, hull 2 1/2 squared."""
    pred, target = torch.tensor([[0.5, 0.5, 1, 1]]), torch.tensor([[0.0, 0, 0.5, 0.5]])
    assert_close(giou_loss(pred, target, eps=4.0), torch.tensor([1 + 2 / 6.25]))


@pytest.mark.parametrize("size", [600.0, 10_000.0])
def test_float16_pixels_do_not_overflow(size):
    target = torch.tensor([[0.0, 0, size, size]], dtype=torch.float16)
    pred = torch.tensor([[0.0, 0, size, size / 2]], dtype=torch.float16)
    loss, gradient = value_and_gradient(pred, target)
    assert_close(loss, torch.tensor([0.5]))
    assert gradient.isfinite().all()


def test_degenerate_pairs_are_finite_with_a_finite_gradient(degenerate_pairs):
    loss, gradient = value_and_gradient(*degenerate_pairs)
    assert ((loss >= 0) & (loss <= 2)).all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("side", [1e-6, 1e-3, 1.0])
def test_gradient_of_a_thin_box_is_bounded_by_its_thin_side(side):
    target = torch.tensor([[0.0, 0.0, 100.0, side]])
    pred = target * torch.tensor([1.0, 1.0, 1.0, 0.5])
    _, gradient = value_and_gradient(pred, target)
    assert gradient.abs().max() <= 2 / side


def test_inverted_boxes_never_score_as_good(inverted):
    loss = giou_loss(*inverted)
    assert ((loss >= 1) & (loss <= 2)).all()


def test_rejects_an_eps_that_is_not_positive():
    with pytest.raises(ValueError, match=r"GIoULoss: eps: expected a value greater than 0"):
        GIoULoss(eps=0.0)


def test_is_a_loss_on_boxes():
    assert GIoULoss.space == "boxes"


def exact_loss(pred, target):
    """The loss of one pair for `test_golden.py`."""
    return 1 - giou(pred, target)
