"""The delta coder. What holds for every coder is in test_base.py."""

import math

import pytest
import torch
from boxgen import box_pairs, random_boxes
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from torchvision.models.detection._utils import BoxCoder

from detloss.coders import DeltaCoder

INFINITY = float("inf")
ANCHOR = [0.0, 0.0, 10.0, 20.0]
FASTER_RCNN = (10.0, 10.0, 5.0, 5.0)
WEIGHTS = [(1.0, 1.0, 1.0, 1.0), FASTER_RCNN, (1.0, 2.0, 3.0, 4.0)]


def reference_encode(box, anchor, weights):
    """Faster R-CNN, equation 2, on Python floats."""
    x, y, w, h = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]
    xa, ya = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
    wa, ha = anchor[2] - anchor[0], anchor[3] - anchor[1]
    deltas = ((x - xa) / wa, (y - ya) / ha, math.log(w / wa), math.log(h / ha))
    return [weight * delta for weight, delta in zip(weights, deltas, strict=True)]


def reference_decode(deltas, anchor, weights):
    """R-CNN, appendix C, equations 1 to 4, with dw and dh bounded above."""
    dx, dy, dw, dh = (delta / weight for weight, delta in zip(weights, deltas, strict=True))
    xa, ya = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
    wa, ha = anchor[2] - anchor[0], anchor[3] - anchor[1]
    x, y = wa * dx + xa, ha * dy + ya
    bound = math.log(1000 / 16)
    w, h = wa * math.exp(min(dw, bound)), ha * math.exp(min(dh, bound))
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


@pytest.mark.parametrize(
    ("box", "weights", "expected"),
    [
        pytest.param(ANCHOR, WEIGHTS[0], [0.0, 0.0, 0.0, 0.0], id="the anchor itself"),
        pytest.param(
            [5.0, 0.0, 15.0, 20.0], WEIGHTS[0], [0.5, 0.0, 0.0, 0.0], id="half a width to the right"
        ),
        pytest.param(
            [0.0, -5.0, 10.0, 15.0], WEIGHTS[0], [0.0, -0.25, 0.0, 0.0], id="a quarter height up"
        ),
        pytest.param(
            [-5.0, 5.0, 15.0, 15.0],
            WEIGHTS[0],
            [0.0, 0.0, math.log(2), -math.log(2)],
            id="twice as wide, half as high",
        ),
        pytest.param(
            [0.0, 5.0, 20.0, 15.0],
            FASTER_RCNN,
            [5.0, 0.0, 5 * math.log(2), -5 * math.log(2)],
            id="10 times the shift, 5 times the logarithm",
        ),
        pytest.param(
            [0.0, 0.0, 20.0, 40.0],
            WEIGHTS[2],
            [0.5, 1.0, 3 * math.log(2), 4 * math.log(2)],
            id="each weight on its own delta",
        ),
    ],
)
def test_worked_by_hand(box, weights, expected):
    coder = DeltaCoder(weights=weights)
    box, anchor, deltas = torch.tensor([box]), torch.tensor([ANCHOR]), torch.tensor([expected])
    assert_close(coder.encode(box, anchor), deltas)
    assert_close(coder.decode(deltas, anchor), box)


@given(box_pairs(), st.sampled_from(WEIGHTS))
def test_encode_matches_the_paper(pair, weights):
    boxes, anchors = pair
    expected = [
        reference_encode(box, anchor, weights)
        for box, anchor in zip(boxes.tolist(), anchors.tolist(), strict=True)
    ]
    deltas = DeltaCoder(weights=weights).encode(boxes, anchors)
    assert_close(deltas, torch.tensor(expected, dtype=torch.float64))


@given(st.integers(0, 2**31), st.sampled_from(WEIGHTS))
def test_decode_matches_the_paper(seed, weights):
    # about a quarter of the log scales lie above ln(1000 / 16) = 4.1 before the weights
    deltas = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)).double() * 6
    anchors = random_boxes(8, seed=seed)
    expected = [
        reference_decode(row, anchor, weights)
        for row, anchor in zip(deltas.tolist(), anchors.tolist(), strict=True)
    ]
    decoded = DeltaCoder(weights=weights).decode(deltas, anchors)
    assert_close(decoded, torch.tensor(expected, dtype=torch.float64))


@given(box_pairs(), st.sampled_from(WEIGHTS))
def test_decode_undoes_encode(pair, weights):
    boxes, anchors = pair  # sides differ by 50 at most, which is under the bound of 62.5
    coder = DeltaCoder(weights=weights)
    assert_close(coder.decode(coder.encode(boxes, anchors), anchors), boxes)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_agrees_with_torchvision(weights):
    boxes, anchors = random_boxes(200, seed=1), random_boxes(200, seed=2)
    ours, theirs = DeltaCoder(weights=weights), BoxCoder(weights)
    deltas = theirs.encode_single(boxes, anchors)
    assert_close(ours.encode(boxes, anchors), deltas)
    wild = deltas * 3  # past the bound for some
    assert_close(ours.decode(wild, anchors), theirs.decode_single(wild, anchors))


@pytest.mark.parametrize("weights", [WEIGHTS[0], FASTER_RCNN])
@pytest.mark.parametrize(
    ("scale", "grown"),
    [
        pytest.param(math.log(62.5), 62.5, id="at the bound"),
        pytest.param(math.log(62.0), 62.0, id="under the bound"),
        pytest.param(math.log(64.0), 62.5, id="just over"),
        pytest.param(1000.0, 62.5, id="exp would overflow"),
        pytest.param(INFINITY, 62.5, id="infinite"),
        pytest.param(-math.log(64.0), 1 / 64, id="no bound below"),
        pytest.param(-20.0, math.exp(-20.0), id="far below"),
        pytest.param(-1000.0, 0.0, id="shrunk to a point"),
        pytest.param(-INFINITY, 0.0, id="minus infinity"),
    ],
)
def test_log_scale_is_bounded_above_only(scale, grown, weights):
    # the bound is on dw / ww: with weight 5, on a delta 5 times as large
    deltas = torch.tensor([[0.0, 0.0, scale * weights[2], scale * weights[3]]], dtype=torch.float64)
    anchors = torch.tensor([[-1.0, -2.0, 1.0, 2.0]], dtype=torch.float64)
    decoded = DeltaCoder(weights=weights).decode(deltas, anchors)
    assert_close(decoded, anchors * grown)


@pytest.mark.parametrize(
    ("shift", "moved"),
    [
        pytest.param([0.5, -0.25], [5.0, -5.0], id="5 and 5 pixels"),
        pytest.param([3.0, 1.75], [30.0, 32.0], id="30 and 35 pixels"),
        pytest.param([-20.0, 1.6], [-32.0, 32.0], id="far, and just at the bound"),
    ],
)
def test_a_shift_is_bounded_in_the_unit_of_the_boxes(shift, moved):
    """YOLOF; a target is not cut."""
    coder, anchor = DeltaCoder(max_shift=32.0), torch.tensor([ANCHOR])
    expected = anchor + torch.tensor([[*moved, *moved]])
    deltas = torch.tensor([[*shift, 0.0, 0.0]])
    assert_close(coder.decode(deltas, anchor), expected)
    far = DeltaCoder().decode(deltas, anchor)
    assert_close(coder.encode(far, anchor), deltas)


@given(st.integers(0, 2**31))
def test_decoded_boxes_are_finite_and_never_inverted(seed):
    deltas = torch.randn(16, 4, generator=torch.Generator().manual_seed(seed)) * 100
    decoded = DeltaCoder().decode(deltas, random_boxes(16, seed=seed, dtype=torch.float32))
    assert decoded.isfinite().all()
    assert (decoded[:, 2:] >= decoded[:, :2]).all()


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param([5.0, 10.0, 5.0, 10.0], [0, 0, math.log(1e-7), math.log(5e-8)], id="a point"),
        pytest.param([0.0, 10.0, 10.0, 10.0], [0, 0, 0, math.log(5e-8)], id="no height"),
        pytest.param([10.0, 0.0, 0.0, 20.0], [0, 0, math.log(1e-7), 0], id="inverted: no width"),
    ],
)
def test_a_box_without_area_has_finite_deltas(box, expected):
    # a side counts as 1e-6 at least: 1e-7 of the anchor's width, 5e-8 of its height
    deltas = DeltaCoder().encode(torch.tensor([box]), torch.tensor([ANCHOR]))
    assert_close(deltas, torch.tensor([expected], dtype=torch.float32))


def test_min_size_is_an_option():
    deltas = DeltaCoder(min_size=2.5).encode(torch.zeros(1, 4), torch.tensor([[-5.0, -5, 5, 5]]))
    assert_close(deltas, torch.tensor([[0.0, 0.0, math.log(1 / 4), math.log(1 / 4)]]))


def test_an_anchor_without_area_has_finite_deltas():
    point = torch.tensor([[5.0, 10.0, 5.0, 10.0]])
    coder = DeltaCoder()
    assert coder.encode(torch.tensor([ANCHOR]), point).isfinite().all()
    assert coder.decode(torch.full((1, 4), 3.0), point).isfinite().all()


def test_gradient_of_wild_and_empty_boxes_is_finite():
    coder = DeltaCoder()
    deltas = torch.tensor([[0.0, 0.0, 1000.0, -1000.0]], requires_grad=True)
    coder.decode(deltas, torch.tensor([ANCHOR])).square().sum().backward()
    assert deltas.grad.isfinite().all()
    point = torch.zeros(1, 4, requires_grad=True)
    coder.encode(point, torch.tensor([ANCHOR])).sum().backward()
    assert point.grad.isfinite().all()


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(half):
    boxes = torch.tensor([[0.0, 0.0, 600.0, 600.0], [16.0, 8.0, 80.0, 24.0]], dtype=half)
    anchors = torch.tensor([[64.0, 0.0, 576.0, 512.0], [0.0, 0.0, 64.0, 64.0]], dtype=half)
    coder = DeltaCoder(weights=FASTER_RCNN)
    deltas = coder.encode(boxes, anchors)
    assert deltas.dtype == torch.float32
    assert torch.equal(deltas, coder.encode(boxes.float(), anchors.float()))
    decoded = coder.decode(deltas.to(half), anchors.float())  # as under autocast
    assert decoded.dtype == torch.float32
    assert torch.equal(decoded, coder.decode(deltas.to(half).float(), anchors.float()))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weights": (10.0, 5.0)}, ValueError, "weights: expected at least 4 values, got"),
        ({"weights": (1.0, 1.0, 1.0, 0.0)}, ValueError, "weights: expected a value greater than 0"),
        ({"weights": 10.0}, TypeError, "weights: expected .*, got 10.0"),
        ({"min_size": 0.0}, ValueError, "min_size: expected a value greater than 0, got 0.0"),
        ({"max_shift": 0.0}, ValueError, "max_shift: expected a value greater than 0, got 0.0"),
        ({"stds": (0.1, 0.1, 0.2, 0.2)}, TypeError, "stds"),
    ],
)
def test_rejects_options(options, error, message):
    with pytest.raises(error, match=message):
        DeltaCoder(**options)
