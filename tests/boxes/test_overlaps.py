"""The overlap family: by hand, against the papers, and paired against pairwise."""

import math

import pytest
import torch
from boxgen import box_pairs, random_boxes
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from torchvision.ops import (
    box_iou,
    complete_box_iou,
    distance_box_iou,
    generalized_box_iou,
)

from detloss.boxes import OVERLAPS, box_area, paired_overlap, pairwise_overlap

UNIT = [0.0, 0.0, 1.0, 1.0]
KINDS = ["iou", "iof", "giou", "diou", "ciou"]
"""Those of this file's reference; what holds for all kinds is asked of `OVERLAPS`."""
# 4 / pi^2 (atan(2) - atan(1))^2: a box twice as wide as high against a square
V_TWO_TO_ONE = 4 / math.pi**2 * (math.atan(2) - math.pi / 4) ** 2


def reference_overlap(kind, a, b, alpha=None):
    """The papers' formulas on Python floats, one pair of well-formed boxes; as GIoU, Algorithm 2.

    `alpha` of CIoU may be given, since the paper takes it as a constant when it differentiates.
    """
    a_width, a_height, b_width, b_height = a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]
    shared_width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    shared_height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = shared_width * shared_height
    if kind == "iof":
        return shared / (a_width * a_height)
    union = a_width * a_height + b_width * b_height - shared
    iou = shared / union
    if kind == "iou":
        return iou
    hull_width, hull_height = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    if kind == "giou":
        return iou - (hull_width * hull_height - union) / (hull_width * hull_height)
    rho = math.dist(((a[0] + a[2]) / 2, (a[1] + a[3]) / 2), ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2))
    diou = iou - rho**2 / (hull_width**2 + hull_height**2)
    if kind == "diou":
        return diou
    v = 4 / math.pi**2 * (math.atan(b_width / b_height) - math.atan(a_width / a_height)) ** 2
    return diou - (v / (1 - iou + v) if alpha is None else alpha) * v


@pytest.mark.parametrize(
    ("kind", "box", "expected"),
    [
        pytest.param("iou", UNIT, 1.0, id="iou, identical"),
        pytest.param("iou", [-1.0, -1.0, 1.0, 1.0], 1 / 4, id="iou, quarter inside"),
        pytest.param("iou", [0.5, 0.0, 1.5, 1.0], 1 / 3, id="iou, half shared: 0.5 of 1.5"),
        pytest.param("iou", [1.0, 0.0, 2.0, 1.0], 0.0, id="iou, touching shares nothing"),
        pytest.param("iou", [5.0, 5.0, 6.0, 6.0], 0.0, id="iou, apart in x and y: no product < 0"),
        pytest.param("iof", [0.0, 0.0, 2.0, 1.0], 1 / 2, id="iof, half of the wide box is shared"),
        pytest.param("iof", [0.25, 0.25, 0.5, 0.5], 1.0, id="iof, wholly inside"),
        pytest.param("giou", UNIT, 1.0, id="giou, identical"),
        pytest.param("giou", [-1.0, -1.0, 1.0, 1.0], 1 / 4, id="giou, hull = union"),
        pytest.param("giou", [1.0, 0.0, 2.0, 1.0], 0.0, id="giou, side by side: hull = union"),
        pytest.param("giou", [1.0, 1.0, 2.0, 2.0], -1 / 2, id="giou, corners: hull 4, union 2"),
        pytest.param("giou", [9.0, 0.0, 10.0, 1.0], -8 / 10, id="giou, apart: hull 10, union 2"),
        pytest.param("diou", UNIT, 1.0, id="diou, identical"),
        pytest.param("diou", [-1.0, -1.0, 1.0, 1.0], 1 / 4 - 1 / 16, id="diou, d2 1/2 over c2 8"),
        pytest.param("diou", [1.0, 0.0, 2.0, 1.0], -1 / 5, id="diou, side by side: d2 1 over c2 5"),
        pytest.param("diou", [1.0, 1.0, 2.0, 2.0], -1 / 4, id="diou, corners: d2 2 over c2 8"),
        pytest.param("ciou", [1.0, 1.0, 2.0, 2.0], -1 / 4, id="ciou, same shape: v 0, as diou"),
        pytest.param(
            "ciou",
            [-0.5, 0.0, 1.5, 1.0],
            1 / 2 - V_TWO_TO_ONE**2 / (1 / 2 + V_TWO_TO_ONE),
            id="ciou, same centre, twice as wide: IoU 1/2, alpha v",
        ),
    ],
)
def test_values_worked_by_hand(kind, box, expected):
    overlap = paired_overlap(torch.tensor(box), torch.tensor(UNIT), kind=kind)
    assert_close(overlap, torch.tensor(expected))


@given(box_pairs())
def test_every_pair_matches_the_papers(pair):
    a, b = pair
    for kind in KINDS:
        expected = [[reference_overlap(kind, x, y) for y in b.tolist()] for x in a.tolist()]
        overlap = pairwise_overlap(a, b, kind=kind)
        assert_close(overlap, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        ("iou", box_iou),
        ("giou", generalized_box_iou),
        ("diou", distance_box_iou),
        ("ciou", complete_box_iou),
    ],
)
def test_agrees_with_torchvision(kind, theirs):
    a, b = random_boxes(30, seed=1), random_boxes(40, seed=2)
    # theirs adds 1e-7 to denominators of order 1e4
    assert_close(pairwise_overlap(a, b, kind=kind), theirs(a, b), rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", OVERLAPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("rows", "columns"), [(0, 0), (0, 3), (3, 0), (1, 5), (5, 1), (7, 12), (33, 18)]
)
def test_pairwise_is_paired_in_a_loop(kind, dtype, rows, columns):
    a, b = random_boxes(rows, seed=3, dtype=dtype), random_boxes(columns, seed=4, dtype=dtype)
    overlap = pairwise_overlap(a, b, kind=kind)
    paired = torch.empty(rows, columns, dtype=dtype)
    for i in range(rows):
        for j in range(columns):
            paired[i, j] = paired_overlap(a[i], b[j], kind=kind)
    if kind in ("iou", "iof", "giou", "diou"):
        assert torch.equal(overlap, paired)
    else:
        # torch.atan2 and the like round an element by where it lies in a vector register
        assert_close(overlap, paired)
    assert overlap.dtype == dtype


@pytest.mark.parametrize("kind", OVERLAPS)
@pytest.mark.parametrize("shape", [(4,), (0, 4), (2, 3, 4)])
def test_paired_takes_any_leading_shape(kind, shape):
    assert paired_overlap(torch.rand(shape), torch.rand(shape), kind=kind).shape == shape[:-1]


@given(box_pairs())
def test_a_box_overlaps_itself_exactly(pair):
    boxes, _ = pair
    for kind in OVERLAPS:
        assert torch.equal(paired_overlap(boxes, boxes, kind=kind), torch.ones_like(boxes[:, 0]))


@given(box_pairs())
def test_symmetric_but_for_iof(pair):
    a, b = pair
    for kind in set(KINDS) - {"iof"}:
        assert_close(pairwise_overlap(a, b, kind=kind), pairwise_overlap(b, a, kind=kind).T)


@given(box_pairs())
def test_ranges(pair):
    overlap = {kind: pairwise_overlap(*pair, kind=kind) for kind in KINDS}
    for kind in ("iou", "iof"):
        assert ((overlap[kind] >= 0) & (overlap[kind] <= 1)).all()
    for kind in ("giou", "diou"):
        assert ((overlap[kind] > -1) & (overlap[kind] <= 1)).all()
    assert ((overlap["ciou"] > -2) & (overlap["ciou"] <= 1)).all()


@given(box_pairs())
def test_each_refinement_only_takes_away(pair):
    overlap = {kind: pairwise_overlap(*pair, kind=kind) for kind in KINDS}
    for refined, plain in (("giou", "iou"), ("diou", "iou"), ("ciou", "diou"), ("iou", "iof")):
        # 1e-12 is rounding: of a box around another, the hull is the union
        assert (overlap[refined] <= overlap[plain] + 1e-12).all(), (refined, plain)


@given(box_pairs(), st.sampled_from([1e-3, 0.7, 640.0]))
def test_free_of_the_unit(pair, scale):
    # with inclusive-pixel coordinates, sides of 1e-3 would all become about 1 + 1e-3
    a, b = pair
    for kind in KINDS:
        scaled = pairwise_overlap(a * scale, b * scale, kind=kind)
        assert_close(scaled, pairwise_overlap(a, b, kind=kind))


@given(box_pairs())
def test_free_of_the_origin(pair):
    a, b = pair
    for kind in KINDS:
        moved = pairwise_overlap(a + 37.0, b + 37.0, kind=kind)
        assert_close(moved, pairwise_overlap(a, b, kind=kind))


def test_neighbouring_pixels_do_not_overlap():
    # inclusive-pixel arithmetic would give them a shared column of 2 pixels
    left, right = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([1.0, 0.0, 2.0, 1.0])
    assert paired_overlap(left, right) == 0
    assert box_area(left) == 1


@pytest.mark.parametrize("kind", ["iou", "iof"])
@pytest.mark.parametrize(
    "box",
    [
        pytest.param([0.8, 0.2, 0.2, 0.8], id="inverted in x, inside"),
        pytest.param([0.2, 0.8, 0.8, 0.2], id="inverted in y, inside"),
        pytest.param([0.8, 0.8, 0.2, 0.2], id="inverted in both: the product of sides is > 0"),
        pytest.param([2.0, 2.0, -1.0, -1.0], id="inverted around"),
        pytest.param([0.5, 0.2, 0.5, 0.8], id="a line"),
        pytest.param([0.5, 0.5, 0.5, 0.5], id="a point"),
    ],
)
def test_an_empty_box_shares_nothing(kind, box):
    empty, unit = torch.tensor(box), torch.tensor(UNIT)
    assert paired_overlap(empty, unit, kind=kind) == 0
    assert paired_overlap(unit, empty, kind=kind) == 0
    assert paired_overlap(empty, empty, kind=kind) == 0
    assert box_area(empty) == 0


@pytest.mark.parametrize(
    ("kind", "box", "other", "expected"),
    [
        pytest.param("giou", [0.8, 0.8, 0.2, 0.2], UNIT, 0.0, id="giou, inverted inside: hull 1"),
        pytest.param(
            "giou", [1.0, 0.0, 3.0, 0.0], UNIT, -2 / 3, id="giou, a line beside: hull 3, union 1"
        ),
        pytest.param("giou", [0.5] * 4, [0.5] * 4, 0.0, id="giou, the same point"),
        pytest.param("giou", [0.0] * 4, [1.0] * 4, -1.0, id="giou, two points: all hull"),
        pytest.param("diou", [0.5] * 4, UNIT, 0.0, id="diou, a point at the centre"),
        pytest.param("diou", [0.0] * 4, UNIT, -1 / 4, id="diou, a point at the corner: 1/2 over 2"),
        pytest.param("diou", [0.0] * 4, [1.0] * 4, -1.0, id="diou, two points span the diagonal"),
        pytest.param(
            "ciou",
            [0.0, 0.5, 1.0, 0.5],
            UNIT,
            -1 / 20,
            id="ciou, a line: pi/2 - pi/4 gives v 1/4, alpha 1/5",
        ),
        pytest.param(
            "ciou",
            [0.0, 0.5, 1.0, 0.5],
            [0.5, 0.0, 0.5, 1.0],
            -1 / 2,
            id="ciou, crossed lines: v 1, alpha 1/2",
        ),
    ],
)
def test_empty_boxes_worked_by_hand(kind, box, other, expected):
    overlap = paired_overlap(torch.tensor(box), torch.tensor(other), kind=kind)
    assert_close(overlap, torch.tensor(expected))


@given(st.integers(0, 2**31))
def test_boxes_inverted_or_flat_stay_in_range(seed):
    generator = torch.Generator().manual_seed(seed)
    # corners on a coarse grid in any order: most boxes are inverted, many are flat
    corners = torch.randint(-3, 4, (2, 8, 4), generator=generator).double()
    a, b = corners
    for kind in KINDS:
        low = {"iou": 0, "iof": 0, "giou": -1, "diou": -1, "ciou": -2}[kind]
        overlap = pairwise_overlap(a, b, kind=kind)
        assert ((overlap >= low) & (overlap <= 1)).all(), kind


@pytest.mark.parametrize("kind", OVERLAPS)
@pytest.mark.parametrize(
    "box",
    [
        pytest.param([0.5, 0.5, 0.5, 0.5], id="a point"),
        pytest.param([0.0, 0.5, 1.0, 0.5], id="no height"),
        pytest.param([0.5, 0.0, 0.5, 1.0], id="no width"),
        pytest.param([0.8, 0.8, 0.2, 0.2], id="inverted"),
        pytest.param(UNIT, id="identical"),
    ],
)
def test_gradient_of_a_degenerate_box_is_finite(kind, box):
    pred = torch.tensor(box, requires_grad=True)
    paired_overlap(pred, torch.tensor(UNIT), kind=kind).backward()
    assert pred.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_the_papers(kind):
    # central differences of the reference; alpha of CIoU is held, as section 3.3 of DIoU says
    a, b = [0.0, 0.1, 2.0, 1.3], [0.5, -0.2, 1.7, 1.9]
    iou = reference_overlap("iou", a, b)
    v = 4 / math.pi**2 * (math.atan(1.2 / 2.1) - math.atan(2.0 / 1.2)) ** 2
    alpha = v / (1 - iou + v)
    step, expected = 1e-6, []
    for coordinate in range(4):
        up, down = list(a), list(a)
        up[coordinate] += step
        down[coordinate] -= step
        rise = reference_overlap(kind, up, b, alpha) - reference_overlap(kind, down, b, alpha)
        expected.append(rise / (2 * step))

    pred = torch.tensor(a, dtype=torch.float64, requires_grad=True)
    paired_overlap(pred, torch.tensor(b, dtype=torch.float64), kind=kind).backward()
    # the truncation of central differences is of order step^2, their rounding 1e-16 / step
    assert_close(pred.grad, torch.tensor(expected, dtype=torch.float64), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", OVERLAPS)
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_pixels_equal_float32(kind, half):
    # 600 x 600 = 360000, and float16 ends at 65504
    a = torch.tensor([[0.0, 0.0, 600.0, 600.0], [8.0, 16.0, 264.0, 528.0]], dtype=half)
    b = torch.tensor([[300.0, 0.0, 600.0, 600.0], [8.0, 16.0, 520.0, 272.0]], dtype=half)
    overlap = paired_overlap(a, b, kind=kind)
    assert overlap.dtype == torch.float32
    assert torch.equal(overlap, paired_overlap(a.float(), b.float(), kind=kind))
    pairs = pairwise_overlap(a, b, kind=kind)
    assert torch.equal(pairs, pairwise_overlap(a.float(), b.float(), kind=kind))
    if kind == "iou":
        assert overlap[0] == 0.5


def test_half_precision_area():
    box = torch.tensor([0.0, 0.0, 600.0, 600.0], dtype=torch.float16)
    assert torch.equal(box_area(box), torch.tensor(360000.0))


@pytest.mark.parametrize("measure", [paired_overlap, pairwise_overlap])
@pytest.mark.parametrize(
    ("a", "b", "error", "message"),
    [
        pytest.param(
            torch.zeros(2, 4, dtype=torch.int64),
            torch.zeros(2, 4),
            TypeError,
            "a must be floating point, got torch.int64",
            id="integers",
        ),
        pytest.param(
            torch.zeros(2, 4),
            [[0, 0, 1, 1]],
            TypeError,
            "b must be a tensor, got list",
            id="a list",
        ),
        pytest.param(
            torch.zeros(2, 4),
            torch.zeros(2, 5),
            ValueError,
            r"b must have shape \(\.\.\., 4\), got \(2, 5\)",
            id="boxes with a score",
        ),
    ],
)
def test_rejects(measure, a, b, error, message):
    with pytest.raises(error, match=message):
        measure(a, b)


@pytest.mark.parametrize("measure", [paired_overlap, pairwise_overlap])
def test_rejects_an_unknown_kind(measure):
    message = f"kind must be one of {', '.join(sorted(OVERLAPS))}, got 'overlap'"
    with pytest.raises(ValueError, match=message):
        measure(torch.zeros(2, 4), torch.zeros(2, 4), kind="overlap")


def test_paired_refuses_to_broadcast():
    message = r"a and b must have the same shape, got \(3, 4\) and \(1, 4\)"
    with pytest.raises(ValueError, match=message):
        paired_overlap(torch.zeros(3, 4), torch.zeros(1, 4))


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4)])
def test_pairwise_takes_two_lists_of_boxes(shape):
    message = rf"b must have shape \(N, 4\), got \({', '.join(map(str, shape))},?\)"
    with pytest.raises(ValueError, match=message):
        pairwise_overlap(torch.zeros(2, 4), torch.zeros(shape))


def test_area_rejects():
    with pytest.raises(TypeError, match=r"boxes must be floating point, got torch\.int64"):
        box_area(torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"boxes must have shape \(\.\.\., 4\), got \(4, 2\)"):
        box_area(torch.zeros(4, 2))
