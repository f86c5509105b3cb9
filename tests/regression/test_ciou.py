"""Complete IoU loss. What holds for every registered loss is in test_contract.py."""

import math
from itertools import pairwise

import pytest
import torch
from boxgen import box_pairs, random_boxes
from exact import ciou, iou, trade_off
from hypothesis import given
from torch.testing import assert_close
from torchvision.ops import complete_box_iou_loss

from detloss.regression import CIoULoss, ciou_loss, diou_loss, iou_loss

UNIT = [0.0, 0.0, 1.0, 1.0]
QUARTER_TURN = 4 / math.pi**2  # v = QUARTER_TURN * (difference of the two angles)^2


def value_and_gradient(pred, target, loss=ciou_loss, **options):
    pred = pred.detach().requires_grad_()
    value = loss(pred, target, **options)
    value.sum().backward()
    return value.detach(), pred.grad


V_TWO_TO_ONE = QUARTER_TURN * (math.atan(1) - math.atan(2)) ** 2


@pytest.mark.parametrize(
    ("pred", "expected"),
    [
        pytest.param(UNIT, 0.0, id="identical"),
        pytest.param([-1.0, -1, 2, 2], 8 / 9, id="concentric squares: v 0, only IoU 1/9"),
        pytest.param([1.0, 1, 2, 2], 1.25, id="squares corner to corner: v 0, d^2 2, c^2 8"),
        pytest.param(
            [0.0, 0.25, 1, 0.75],
            0.5 + V_TWO_TO_ONE**2 / (0.5 + V_TWO_TO_ONE),
            id="concentric, twice as wide as high: IoU 1/2, alpha = v / (1/2 + v)",
        ),
        pytest.param(
            [4.0, 0, 6, 1],
            1 + 20.25 / 37 + V_TWO_TO_ONE**2 / (1 + V_TWO_TO_ONE),
            id="apart: d 4.5, hull 6 by 1, alpha = v / (1 + v), not gated at IoU 1/2",
        ),
        pytest.param([0.5, 0.0, 0.5, 1], 1.0 + 0.25**2 / 1.25, id="no width: angle 0, v 1/4"),
        pytest.param([0.0, 0.5, 1, 0.5], 1.0 + 0.25**2 / 1.25, id="no height: angle pi/2, v 1/4"),
    ],
)
def test_values_worked_by_hand(pred, expected):
    assert_close(ciou_loss(torch.tensor(pred), torch.tensor(UNIT)), torch.tensor(expected))


@pytest.mark.parametrize(
    ("pred", "expected"),
    [
        pytest.param([0.0, 0.25, 1, 0.75], 0.5, id="IoU 1/2: not above it"),
        pytest.param([4.0, 0, 6, 1], 1 + 20.25 / 37, id="apart: as DIoU"),
        pytest.param([0.0, 0.125, 1, 0.875], None, id="IoU 3/4: as the paper"),
    ],
)
def test_mmdets_convention_counts_the_aspect_above_an_iou_of_a_half(pred, expected):
    pair = torch.tensor(pred), torch.tensor(UNIT)
    loss = ciou_loss(*pair, convention="mmdet")
    assert_close(loss, ciou_loss(*pair) if expected is None else torch.tensor(expected))
    assert ciou_loss(*pair) > diou_loss(*pair)


def test_rejects_an_unknown_convention():
    with pytest.raises(ValueError, match="convention must be one of paper, mmdet, got 'code'"):
        ciou_loss(torch.zeros(1, 4), torch.zeros(1, 4), convention="code")
    with pytest.raises(ValueError, match="CIoULoss: convention: expected 'paper' or 'mmdet'"):
        CIoULoss(convention="code")


def reference_parts(a, b):
    """IoU, ``d^2 / c^2``, v and alpha of equations 8 to 11 of the paper, on Python floats."""
    width_a, height_a, width_b, height_b = a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]
    overlap_width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    overlap_height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    overlap = overlap_width * overlap_height
    iou = overlap / (width_a * height_a + width_b * height_b - overlap)
    dx = (a[0] + a[2]) / 2 - (b[0] + b[2]) / 2
    dy = (a[1] + a[3]) / 2 - (b[1] + b[3]) / 2
    hull_width = max(a[2], b[2]) - min(a[0], b[0])
    hull_height = max(a[3], b[3]) - min(a[1], b[1])
    v = 4 / math.pi**2 * (math.atan(width_b / height_b) - math.atan(width_a / height_a)) ** 2
    return iou, (dx**2 + dy**2) / (hull_width**2 + hull_height**2), v, v / (1 - iou + v)


@given(box_pairs())
def test_every_pair_matches_the_paper(pair):
    pred, target = pair
    expected = []
    for p, t in zip(pred.tolist(), target.tolist(), strict=True):
        iou, distance, v, alpha = reference_parts(p, t)
        expected.append(1 - iou + distance + alpha * v)
    assert_close(ciou_loss(pred, target), torch.tensor(expected, dtype=torch.float64))


@given(box_pairs())
def test_value_and_gradient_equal_torchvision_on_well_formed_boxes(pair):
    # as large as this, since torchvision adds 1e-7 to two denominators whatever its eps
    pred, target = pair[0] * 1e3, pair[1] * 1e3
    expected = value_and_gradient(pred, target, complete_box_iou_loss, eps=0.0)
    assert_close(value_and_gradient(pred, target), expected, rtol=1e-10, atol=1e-14)


@given(box_pairs())
def test_alpha_carries_no_gradient(pair):
    """The loss's gradient is that of ``1 - IoU + rho + alpha v`` with alpha held constant."""
    pred, target = pair
    rows = zip(pred.tolist(), target.tolist(), strict=True)
    alpha = torch.tensor([reference_parts(p, t)[3] for p, t in rows], dtype=torch.float64)

    def with_constant_alpha(pred, target):
        angle = torch.atan((pred[:, 2] - pred[:, 0]) / (pred[:, 3] - pred[:, 1]))
        true = torch.atan((target[:, 2] - target[:, 0]) / (target[:, 3] - target[:, 1]))
        return diou_loss(pred, target) + alpha * QUARTER_TURN * (true - angle) ** 2

    expected = value_and_gradient(pred, target, with_constant_alpha)
    assert_close(value_and_gradient(pred, target), expected, rtol=1e-10, atol=1e-12)


@given(box_pairs())
def test_the_aspect_gradient_is_the_docstring_formula(pair):
    """``dv/dw = -k h`` and ``dv/dh = k w``: what CIoU adds to the gradient of DIoU, over alpha."""
    pred, target = pair
    gradient = value_and_gradient(pred, target)[1]
    aspect = gradient - value_and_gradient(pred, target, diou_loss)[1]
    expected = []
    for p, t in zip(pred.tolist(), target.tolist(), strict=True):
        w, h, alpha = p[2] - p[0], p[3] - p[1], reference_parts(p, t)[3]
        angle = math.atan((t[2] - t[0]) / (t[3] - t[1])) - math.atan(w / h)
        k = 8 / math.pi**2 * angle / (w**2 + h**2)
        dw, dh = alpha * -k * h, alpha * k * w
        expected.append([-dw, -dh, dw, dh])
    assert_close(aspect, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)


@given(box_pairs())
def test_symmetric_bounded_and_free_of_unit(pair):
    pred, target = pair
    loss = ciou_loss(pred, target)
    assert ((loss >= 0) & (loss < 2.5)).all()  # alpha v is below v^2 / (1 + v) <= 1/2 at IoU 0
    assert (loss >= diou_loss(pred, target) - 1e-12).all()
    assert_close(loss, ciou_loss(target, pred))
    assert_close(loss, ciou_loss(pred * 1e-3, target * 1e-3))


@given(box_pairs())
def test_boxes_of_one_shape_cost_what_diou_says(pair):
    pred, shift = pair
    target = pred * 2 + shift[:, :2].repeat(1, 2)  # the same aspect ratio, elsewhere
    assert_close(ciou_loss(pred, target), diou_loss(pred, target))


@given(box_pairs())
def test_identical_boxes_are_exactly_zero(pair):
    loss, gradient = value_and_gradient(pair[0], pair[0])
    assert torch.equal(loss, torch.zeros(len(pair[0])).double())
    assert gradient.isfinite().all()


@given(box_pairs())
def test_moving_a_disjoint_box_straight_at_the_other_lowers_the_loss(pair):
    pred, target = pair
    apart = torch.tensor([300.0, 0.0, 300.0, 0.0], dtype=torch.float64)
    towards = (target[:, :2] + target[:, 2:] - pred[:, :2] - pred[:, 2:]) / 2 - apart[:2]
    losses = [
        ciou_loss(pred + apart + share * towards.repeat(1, 2), target)
        for share in (0.0, 0.1, 0.2, 0.5, 0.8)
    ]
    for far, near in pairwise(losses):
        assert (near < far).all()


def test_every_coordinate_of_an_overlapping_box_has_a_gradient():
    target = random_boxes(50, seed=3)
    pred = target + torch.tensor([0.3, -0.2, -0.1, 0.4], dtype=torch.float64)
    _, gradient = value_and_gradient(pred, target)
    assert (gradient != 0).all()


@pytest.mark.parametrize("size", [600.0, 10_000.0])
def test_float16_pixels_do_not_overflow(size):
    """IoU 1/2; d^2 / c^2 = (1/4)^2 / 2; twice as wide as high."""
    target = torch.tensor([[0.0, 0, size, size]], dtype=torch.float16)
    pred = torch.tensor([[0.0, 0, size, size / 2]], dtype=torch.float16)
    loss, gradient = value_and_gradient(pred, target)
    expected = 0.5 + 1 / 32 + V_TWO_TO_ONE**2 / (0.5 + V_TWO_TO_ONE)
    assert_close(loss, torch.tensor([expected]))
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
    assert (ciou_loss(*inverted) >= 1).all()


@pytest.mark.parametrize(
    "pred",
    [
        pytest.param([1000.0, 0, 2, 1], id="its corners beyond the hull on one side"),
        pytest.param([-1.0, 0, -100, 1], id="on the other side"),
        pytest.param([1000.0, 900, 2, 3], id="in both axes"),
    ],
)
def test_an_inverted_box_stays_in_the_documented_range(pred):
    loss = ciou_loss(torch.tensor(pred), torch.tensor(UNIT))
    assert 1 <= loss < 3


def test_overlap_alone_is_iou_when_centres_and_shapes_agree():
    pred, target = torch.tensor([[-1.0, -2, 3, 6]]), torch.tensor([[0.0, 0, 2, 4]])
    assert_close(ciou_loss(pred, target), iou_loss(pred, target))


def test_rejects_an_eps_that_is_not_positive():
    with pytest.raises(ValueError, match=r"CIoULoss: eps: expected a value greater than 0"):
        CIoULoss(eps=0.0)


def test_is_a_loss_on_boxes():
    assert CIoULoss.space == "boxes"


EXACT_OPTIONS = [{}, {"convention": "mmdet"}]


def exact_loss(pred, target, alpha=None, convention="paper"):
    """The loss of one pair for `test_golden.py`."""
    if convention == "mmdet" and 2 * iou(pred, target) <= 1:
        alpha = 0
    return 1 - ciou(pred, target, alpha)


def exact_constants(pred, target):
    """DIoU paper, below equation 11: alpha is a constant for the gradient."""
    return {"alpha": trade_off(pred, target)}
