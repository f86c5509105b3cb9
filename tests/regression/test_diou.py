"""Distance IoU loss. What holds for every registered loss is in test_contract.py."""

from itertools import pairwise

import pytest
import torch
from boxgen import box_pairs, random_boxes
from exact import diou
from hypothesis import given
from torch.testing import assert_close
from torchvision.ops import distance_box_iou_loss

from detloss.regression import DIoULoss, diou_loss, iou_loss

UNIT = [0.0, 0.0, 1.0, 1.0]


def value_and_gradient(pred, target, loss=diou_loss, **options):
    pred = pred.detach().requires_grad_()
    value = loss(pred, target, **options)
    value.sum().backward()
    return value.detach(), pred.grad


@pytest.mark.parametrize(
    ("pred", "expected"),
    [
        pytest.param(UNIT, 0.0, id="identical"),
        pytest.param([-1.0, -1, 2, 2], 8 / 9, id="concentric: only IoU 1/9, no distance"),
        pytest.param([-1.0, -1, 1, 1], 0.75 + 0.5 / 8, id="IoU 1/4; d^2 1/2, c^2 8"),
        pytest.param([0.5, 0, 1.5, 1], 2 / 3 + 0.25 / 3.25, id="IoU 1/3; d^2 1/4, c^2 9/4 + 1"),
        pytest.param([0.0, 1, 1, 2], 1.2, id="side by side: d^2 1, c^2 5"),
        pytest.param([1.0, 1, 2, 2], 1.25, id="corner to corner: d^2 2, c^2 8"),
        pytest.param([99.0, 0, 100, 1], 1 + 9801 / 10001, id="far apart: towards 2"),
        pytest.param([0.5, 0.5, 0.5, 0.5], 1.0, id="a point at the centre: IoU 0, d 0"),
        pytest.param([0.0, 0, 0, 0], 1.25, id="a point in the corner: d^2 1/2, c^2 2"),
        pytest.param([1.0, 1, 0, 0], 1.25, id="inverted: a point in its first corner"),
    ],
)
def test_values_worked_by_hand(pred, expected):
    assert_close(diou_loss(torch.tensor(pred), torch.tensor(UNIT)), torch.tensor(expected))


def reference_diou(a, b):
    """Equation 7 of the paper on Python floats, without its "1 -"."""
    overlap_width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    overlap_height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    overlap = overlap_width * overlap_height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    dx = (a[0] + a[2]) / 2 - (b[0] + b[2]) / 2
    dy = (a[1] + a[3]) / 2 - (b[1] + b[3]) / 2
    hull_width = max(a[2], b[2]) - min(a[0], b[0])
    hull_height = max(a[3], b[3]) - min(a[1], b[1])
    return overlap / union - (dx**2 + dy**2) / (hull_width**2 + hull_height**2)


@given(box_pairs())
def test_every_pair_matches_the_paper(pair):
    pred, target = pair
    expected = [
        1 - reference_diou(p, t) for p, t in zip(pred.tolist(), target.tolist(), strict=True)
    ]
    assert_close(diou_loss(pred, target), torch.tensor(expected, dtype=torch.float64))


@given(box_pairs())
def test_value_and_gradient_equal_torchvision_on_well_formed_boxes(pair):
    pred, target = pair
    expected = value_and_gradient(pred, target, distance_box_iou_loss, eps=0.0)
    assert_close(value_and_gradient(pred, target), expected, rtol=1e-10, atol=1e-12)


@given(box_pairs())
def test_symmetric_bounded_and_free_of_unit(pair):
    pred, target = pair
    loss = diou_loss(pred, target)
    assert ((loss >= 0) & (loss < 2)).all()
    assert (loss >= iou_loss(pred, target) - 1e-12).all()
    assert_close(loss, diou_loss(target, pred))
    assert_close(loss, diou_loss(pred * 1e-3, target * 1e-3))


@given(box_pairs())
def test_identical_boxes_are_exactly_zero(pair):
    assert torch.equal(diou_loss(pair[0], pair[0]), torch.zeros(len(pair[0])).double())


@given(box_pairs())
def test_the_gradient_always_pulls_straight_at_the_other_centre(pair):
    """Straight, not in each axis: pulling in x also shrinks the hull that d^2 is divided by."""
    pred, target = pair
    _, gradient = value_and_gradient(pred, target)
    towards = (target[:, :2] + target[:, 2:] - pred[:, :2] - pred[:, 2:]) / 2
    derivative = ((gradient[:, :2] + gradient[:, 2:]) * towards).sum(-1)
    assert (derivative < 0).all()


@given(box_pairs())
def test_moving_a_disjoint_box_straight_at_the_other_lowers_the_loss(pair):
    pred, target = pair
    apart = torch.tensor([300.0, 0.0, 300.0, 0.0], dtype=torch.float64)
    towards = (target[:, :2] + target[:, 2:] - pred[:, :2] - pred[:, 2:]) / 2 - apart[:2]
    losses = [
        diou_loss(pred + apart + share * towards.repeat(1, 2), target)
        for share in (0.0, 0.1, 0.2, 0.5, 0.8)
    ]
    for far, near in pairwise(losses):
        assert (near < far).all()


def test_inside_the_target_it_still_pulls_to_the_centre_where_giou_is_flat():
    pred, target = torch.tensor([[1.0, 1, 2, 2]]), torch.tensor([[0.0, 0, 10, 10]])
    _, gradient = value_and_gradient(pred, target)
    # d^2 = 24.5, c^2 = 200; moving the box by 1 in x changes d^2 by -7, and IoU not at all
    assert_close(gradient[0, 0] + gradient[0, 2], torch.tensor(-7 / 200))


def test_every_coordinate_of_an_overlapping_box_has_a_gradient():
    target = random_boxes(50, seed=3)
    pred = target + torch.tensor([0.3, -0.2, -0.1, 0.4], dtype=torch.float64)
    _, gradient = value_and_gradient(pred, target)
    assert (gradient != 0).all()


def test_a_target_side_below_sqrt_eps_counts_as_that_long():
    """Corner to corner, d^2 1/2; the target, and the hull with it, longer by 3/2: c^2 12.5."""
    pred, target = torch.tensor([[0.5, 0.5, 1, 1]]), torch.tensor([[0.0, 0, 0.5, 0.5]])
    assert_close(diou_loss(pred, target, eps=4.0), torch.tensor([1.04]))


@pytest.mark.parametrize("size", [600.0, 10_000.0])
def test_float16_pixels_do_not_overflow(size):
    """IoU 1/2; d^2 / c^2 = (1/4)^2 / 2."""
    target = torch.tensor([[0.0, 0, size, size]], dtype=torch.float16)
    pred = torch.tensor([[0.0, 0, size, size / 2]], dtype=torch.float16)
    loss, gradient = value_and_gradient(pred, target)
    assert_close(loss, torch.tensor([0.5 + 1 / 32]))
    assert gradient.isfinite().all()


def test_degenerate_pairs_are_finite_with_a_finite_gradient(degenerate_pairs):
    loss, gradient = value_and_gradient(*degenerate_pairs)
    assert (loss.isfinite() & (loss >= 0)).all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("side", [1e-6, 1e-3, 1.0])
def test_gradient_of_a_thin_box_is_bounded_by_its_thin_side(side):
    target = torch.tensor([[0.0, 0.0, 100.0, side]])
    pred = target * torch.tensor([1.0, 1.0, 1.0, 0.5])
    _, gradient = value_and_gradient(pred, target)
    assert gradient.abs().max() <= 2 / side


def test_inverted_boxes_never_score_as_good(inverted):
    assert (diou_loss(*inverted) >= 1).all()


@pytest.mark.parametrize(
    "pred",
    [
        pytest.param([1000.0, 0, 2, 1], id="its corners beyond the hull on one side"),
        pytest.param([-1.0, 0, -100, 1], id="on the other side"),
        pytest.param([1000.0, 900, 2, 3], id="in both axes"),
    ],
)
def test_an_inverted_box_stays_in_the_documented_range(pred):
    loss = diou_loss(torch.tensor(pred), torch.tensor(UNIT))
    assert 1 <= loss <= 2


def test_rejects_an_eps_that_is_not_positive():
    with pytest.raises(ValueError, match=r"DIoULoss: eps: expected a value greater than 0"):
        DIoULoss(eps=0.0)


def test_is_a_loss_on_boxes():
    assert DIoULoss.space == "boxes"


def exact_loss(pred, target):
    """The loss of one pair for `test_golden.py`."""
    return 1 - diou(pred, target)
