"""IoU loss. What holds for every registered loss is in test_contract.py."""

import math
from fractions import Fraction

import pytest
import torch
from boxgen import box_pairs, random_boxes
from exact import REALS, iou, real
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from detloss.regression import IoULoss, iou_loss

MODES = ("linear", "log", "square")
UNIT = [0.0, 0.0, 1.0, 1.0]
NOTHING_SHARED = {"linear": 1.0, "log": -math.log(1e-7), "square": 1.0}


def value_and_gradient(pred, target, **options):
    pred = pred.detach().requires_grad_()
    loss = iou_loss(pred, target, **options)
    loss.sum().backward()
    return loss.detach(), pred.grad


@pytest.mark.parametrize(
    ("pred", "linear", "log", "square"),
    [
        pytest.param(UNIT, 0.0, 0.0, 0.0, id="identical: IoU 1"),
        pytest.param([-1.0, -1, 1, 1], 0.75, math.log(4), 15 / 16, id="inside: IoU 1 / 4"),
        pytest.param([0.0, 0, 1, 0.5], 0.5, math.log(2), 0.75, id="half of it: IoU 1 / 2"),
        pytest.param([0.5, 0, 1.5, 1], 2 / 3, math.log(3), 8 / 9, id="shifted: IoU 0.5 / 1.5"),
        pytest.param([0.5, 0.5, 1.5, 1.5], 6 / 7, math.log(7), 48 / 49, id="diagonal: 0.25 / 1.75"),
        pytest.param([1.0, 0, 2, 1], *NOTHING_SHARED.values(), id="touching: IoU 0"),
        pytest.param([5.0, 5, 6, 6], *NOTHING_SHARED.values(), id="apart: IoU 0"),
        pytest.param([0.5, 0.5, 0.5, 0.5], *NOTHING_SHARED.values(), id="a point inside: IoU 0"),
        pytest.param([1.0, 0, 0, 1], *NOTHING_SHARED.values(), id="x inverted counts as empty"),
        pytest.param([1.0, 1, 0, 0], *NOTHING_SHARED.values(), id="x and y inverted: still empty"),
    ],
)
def test_values_worked_by_hand(pred, linear, log, square):
    pred, target = torch.tensor(pred), torch.tensor(UNIT)
    for mode, expected in zip(MODES, (linear, log, square), strict=True):
        assert_close(iou_loss(pred, target, mode=mode), torch.tensor(expected), msg=mode)


def reference_iou(a, b):
    """``|A n B| / |A u B|`` on Python floats."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    return shared / (area_a + area_b - shared)


FROM_IOU = {
    "linear": lambda iou: 1 - iou,
    "log": lambda iou: -math.log(max(iou, 1e-7)),
    "square": lambda iou: 1 - iou**2,
}


@given(box_pairs(), st.sampled_from(MODES))
def test_every_pair_matches_the_papers(pair, mode):
    pred, target = pair
    expected = [
        FROM_IOU[mode](reference_iou(p, t))
        for p, t in zip(pred.tolist(), target.tolist(), strict=True)
    ]
    assert_close(iou_loss(pred, target, mode=mode), torch.tensor(expected, dtype=torch.float64))


@given(box_pairs(), st.sampled_from(MODES))
def test_symmetric_bounded_and_free_of_unit(pair, mode):
    pred, target = pair
    loss = iou_loss(pred, target, mode=mode)
    assert ((loss >= 0) & (loss <= NOTHING_SHARED[mode] + 1e-12)).all()
    assert_close(loss, iou_loss(target, pred, mode=mode))
    assert_close(loss, iou_loss(pred * 1e-3, target * 1e-3, mode=mode))


@given(box_pairs(), st.sampled_from(MODES))
def test_identical_boxes_are_exactly_zero(pair, mode):
    assert torch.equal(iou_loss(pair[0], pair[0], mode=mode), torch.zeros(len(pair[0])).double())


@pytest.mark.parametrize("mode", MODES)
def test_eps_is_a_floor_of_the_union_that_tiny_boxes_in_fractions_must_stay_above(mode):
    """One pixel of a 4000 pixel image has the area 6.25e-8: the default floor makes IoU 0.625."""
    box = torch.tensor([[0.5, 0.5, 0.5 + 1 / 4000, 0.5 + 1 / 4000]], dtype=torch.float64)
    floored = {"linear": 0.375, "log": -math.log(0.625), "square": 1 - 0.625**2}[mode]
    assert iou_loss(box, box, mode=mode).item() == pytest.approx(floored)
    assert iou_loss(box, box, mode=mode, eps=1e-12).item() == pytest.approx(0, abs=1e-12)


@given(box_pairs())
def test_the_gradients_of_the_modes_differ_by_the_factor_of_the_docstring(pair):
    pred, target = pair
    target = (pred + target) / 2  # so that most pairs share something
    loss, linear = value_and_gradient(pred, target)
    iou = (1 - loss)[:, None]
    log, square = (value_and_gradient(pred, target, mode=mode)[1] for mode in ("log", "square"))
    assert_close(log * iou, torch.where(iou > 1e-7, linear, 0.0))
    assert_close(square, 2 * iou * linear)


def test_gradient_worked_by_hand():
    """Sides w, h inside a target of area 4: IoU = w h / 4, so d IoU / d x2 = h / 4."""
    pred, target = torch.tensor([[0.5, 0.5, 1.5, 1.0]]), torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    _, gradient = value_and_gradient(pred, target)
    assert_close(gradient, torch.tensor([[0.125, 0.25, -0.125, -0.25]]))


@pytest.mark.parametrize("mode", MODES)
def test_every_coordinate_of_an_overlapping_box_has_a_gradient(mode):
    target = random_boxes(50, seed=3)
    pred = target + torch.tensor([0.3, -0.2, -0.1, 0.4], dtype=torch.float64)
    _, gradient = value_and_gradient(pred, target, mode=mode)
    assert (gradient != 0).all()


@pytest.mark.parametrize("mode", MODES)
def test_flat_where_the_boxes_do_not_touch(mode):
    _, gradient = value_and_gradient(torch.tensor([[5.0, 5, 6, 6]]), torch.tensor([UNIT]))
    assert torch.equal(gradient, torch.zeros(1, 4))


def test_eps_is_the_floor_of_the_iou_under_the_logarithm():
    pred, target = torch.tensor([[5.0, 5, 6, 6]]), torch.tensor([UNIT])
    loss = iou_loss(pred, target, mode="log", eps=1e-3)
    assert_close(loss, torch.tensor([-math.log(1e-3)]))


def test_eps_is_the_floor_of_the_union():
    """An area of 1/4 over a floor of 1."""
    box = torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    assert_close(iou_loss(box, box, eps=1.0), torch.tensor([0.75]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [600.0, 10_000.0])
def test_float16_pixels_do_not_overflow(mode, size):
    target = torch.tensor([[0.0, 0.0, size, size]], dtype=torch.float16)
    pred = torch.tensor([[0.0, 0.0, size, size / 2]], dtype=torch.float16)
    expected = {"linear": 0.5, "log": math.log(2), "square": 0.75}[mode]
    loss, gradient = value_and_gradient(pred, target, mode=mode)
    assert_close(loss, torch.tensor([expected]))
    assert gradient.isfinite().all()


@pytest.mark.parametrize("mode", MODES)
def test_degenerate_pairs_are_finite_with_a_finite_gradient(mode, degenerate_pairs):
    """In "log" it is divided by the IoU, and may be beyond float16."""
    pred, target = degenerate_pairs
    loss, gradient = value_and_gradient(pred, target, mode=mode)
    assert loss.isfinite().all()
    if pred.dtype == torch.float16:
        _, wide = value_and_gradient(pred.float(), target, mode=mode)
        assert_close(gradient, wide.half())
        gradient = wide
    assert gradient.isfinite().all()


@pytest.mark.parametrize("mode", MODES)
def test_inverted_boxes_share_nothing(mode, inverted):
    loss = iou_loss(*inverted, mode=mode)
    assert_close(loss, torch.full_like(loss, NOTHING_SHARED[mode]))


@pytest.mark.parametrize("side", [1e-6, 1e-3, 1.0])
def test_gradient_of_a_thin_box_is_bounded_by_its_thin_side(side):
    target = torch.tensor([[0.0, 0.0, 100.0, side]])
    pred = target * torch.tensor([1.0, 1.0, 1.0, 0.5])
    _, gradient = value_and_gradient(pred, target)
    assert gradient.abs().max() <= 2 / side


def test_rejects_an_unknown_mode():
    with pytest.raises(ValueError, match="mode must be one of linear, log, square, got 'ln'"):
        iou_loss(torch.zeros(1, 4), torch.zeros(1, 4), mode="ln")
    with pytest.raises(ValueError, match=r"IoULoss: mode: expected 'linear', 'log' or 'square'"):
        IoULoss(mode="ln")


def test_rejects_an_eps_that_is_not_positive():
    with pytest.raises(ValueError, match=r"IoULoss: eps: expected a value greater than 0"):
        IoULoss(eps=0.0)


def test_is_a_loss_on_boxes():
    assert IoULoss.space == "boxes"


EXACT_OPTIONS = [{"mode": mode} for mode in MODES]


def exact_loss(pred, target, mode):
    """The loss of one pair for `test_golden.py`."""
    overlap = iou(pred, target)
    if mode == "log":
        return -REALS.log(real(max(overlap, Fraction(1e-7))))  # the documented floor
    return 1 - {"linear": overlap, "square": overlap**2}[mode]
