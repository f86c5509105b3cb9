"""What every coder must do. A new coder is tested here without an edit."""

import math
from typing import get_args

import pytest
import torch
from boxgen import box_pairs, random_boxes
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.testing import assert_close

import detloss
from detloss.coders import Coder
from detloss.coders.base import bounded_exp, box_around, centre_and_size
from detloss.kernels import Space
from detloss.registry import CODERS

SEEDS = st.integers(0, 2**31)
NUMBERS = st.floats(-1e6, 1e6, width=32)
ROWS = st.lists(st.lists(NUMBERS, min_size=8, max_size=8), min_size=1, max_size=4)

of_every_coder = pytest.mark.parametrize("name", CODERS.names())


def build(name, **options):
    return detloss.build_part("coder", {"type": name, **options})


def square_anchors(count, seed, dtype=torch.float64):
    """Squares with sides of 20 to 40 around the origin, give or take 10."""
    generator = torch.Generator().manual_seed(seed)
    centre = 20 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 10
    half = 10 + 10 * torch.rand(count, 1, generator=generator, dtype=torch.float64)
    return torch.cat([centre - half, centre + half], dim=-1).to(dtype)


def boxes_around(anchors, seed):
    """Boxes that every coder reaches, with sides of 1.2 to 3.8 of their anchor's.

    Their centre lies in the square around its anchor's of 0.9 sides, their own sides 0.15 or more
    of the anchor's from there.
    """
    generator = torch.Generator().manual_seed(seed)
    half, shift = torch.rand(2, len(anchors), 2, generator=generator, dtype=anchors.dtype)
    half, shift = 0.6 + 1.3 * half, 0.9 * shift - 0.45
    centre, side = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    return torch.cat([centre + (shift - half) * side, centre + (shift + half) * side], dim=-1)


def looks_at_anchors(name):
    """Whether a box is encoded otherwise at another anchor."""
    some, other = square_anchors(2, 0), square_anchors(2, 1)
    coder, boxes = build(name), boxes_around(some, 2)
    return not torch.equal(coder.encode(boxes, some), coder.encode(boxes, other))


of_every_coder_at_anchors = pytest.mark.parametrize(
    "name", [name for name in CODERS.names() if looks_at_anchors(name)]
)


def regression_of(coder, target):
    """What a network regresses whose boxes have that encoding (N, 4)."""
    if coder.bins == 1:
        return target
    # a distance between two bins is their mean, each with its share
    bins = torch.arange(coder.bins, dtype=target.dtype)
    shares = (1 - (target[..., None] - bins).abs()).clamp(min=0)
    return shares.clamp(min=1e-30).log().flatten(-2)


@of_every_coder
def test_says_where_a_loss_may_be_computed(name):
    coder = build(name)
    assert isinstance(coder, Coder)
    assert coder.spaces <= set(get_args(Space))
    assert "boxes" in coder.spaces
    assert ("bins" in coder.spaces) == (coder.bins > 1)
    assert coder.width == 4 * coder.bins


@of_every_coder
@given(seed=SEEDS)
def test_decode_undoes_encode(name, seed):
    coder, anchors = build(name), square_anchors(8, seed)
    boxes = boxes_around(anchors, seed + 1)
    regression = regression_of(coder, coder.encode(boxes, anchors))
    assert_close(coder.decode(regression, anchors), boxes)


@of_every_coder
@given(pair=box_pairs())
def test_what_is_out_of_reach_is_encoded_like_what_decodes_from_it(name, pair):
    """Small, large and far boxes, at anchors that are no squares: nothing changes twice."""
    coder, (boxes, anchors) = build(name), pair
    target = coder.encode(boxes, anchors)
    decoded = coder.decode(regression_of(coder, target), anchors)
    assert_close(coder.encode(decoded, anchors), target, rtol=1e-6, atol=1e-6)


@of_every_coder_at_anchors
@given(seed=SEEDS, shift=st.lists(st.integers(-1000, 1000), min_size=2, max_size=2))
def test_what_is_encoded_does_not_move_with_the_image(name, seed, shift):
    coder, anchors = build(name), square_anchors(8, seed)
    boxes, move = boxes_around(anchors, seed + 1), torch.tensor(shift * 2).double()
    target = coder.encode(boxes, anchors)
    assert_close(coder.encode(boxes + move, anchors + move), target)
    regression = regression_of(coder, target)
    moved = coder.decode(regression, anchors + move)
    assert_close(moved, coder.decode(regression, anchors) + move)


@of_every_coder_at_anchors
@given(seed=SEEDS, scale=st.sampled_from([2.0**-8, 2.0**10]))
def test_what_is_encoded_has_no_unit(name, seed, scale):
    coder, anchors = build(name), square_anchors(8, seed)
    boxes = boxes_around(anchors, seed + 1)
    target = coder.encode(boxes, anchors)
    assert_close(coder.encode(boxes * scale, anchors * scale), target)
    regression = regression_of(coder, target)
    scaled = coder.decode(regression, anchors * scale)
    assert_close(scaled, coder.decode(regression, anchors) * scale)


@of_every_coder
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@given(rows=ROWS)
def test_encode_is_finite_with_finite_gradients(name, rows, dtype):
    """Of any boxes at any anchors, without area and inverted ones too."""
    numbers = torch.tensor(rows, dtype=dtype).requires_grad_()
    target = build(name).encode(numbers[:, :4], numbers[:, 4:])
    assert target.isfinite().all()
    (gradient,) = torch.autograd.grad(target.sum(), numbers)
    assert gradient.isfinite().all()


@of_every_coder
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@given(rows=ROWS, seed=SEEDS)
def test_decode_is_finite_with_finite_gradients(name, rows, seed, dtype):
    coder, numbers = build(name), torch.tensor(rows, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(4, (len(rows), coder.width), generator=generator)
    regression = numbers[:, :4].gather(1, which).requires_grad_()
    boxes = coder.decode(regression, numbers[:, 4:])
    assert boxes.isfinite().all()
    (gradient,) = torch.autograd.grad(boxes.sum(), regression)
    assert gradient.isfinite().all()


@of_every_coder
def test_gradients(name):
    coder, anchors = build(name), square_anchors(3, 0)
    boxes = boxes_around(anchors, 1).requires_grad_()
    assert gradcheck(lambda b: coder.encode(b, anchors), boxes)
    generator = torch.Generator().manual_seed(0)
    regression = torch.randn(3, coder.width, generator=generator, dtype=torch.float64)
    assert gradcheck(lambda r: coder.decode(r, anchors), regression.requires_grad_())


@of_every_coder
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name, half):
    coder, anchors = build(name), square_anchors(8, 0).to(half)
    boxes = boxes_around(anchors, 1)
    target = coder.encode(boxes, anchors)
    assert target.dtype == torch.float32
    assert torch.equal(target, coder.encode(boxes.float(), anchors.float()))
    regression = torch.randn(8, coder.width).to(half)
    decoded = coder.decode(regression, anchors.float())  # as under autocast
    assert decoded.dtype == torch.float32
    assert torch.equal(decoded, coder.decode(regression.float(), anchors.float()))


@of_every_coder
@pytest.mark.parametrize("lead", [(), (0,), (2, 0), (2, 3)], ids=str)
def test_any_leading_shape(name, lead):
    coder, boxes = build(name), torch.rand(*lead, 4)
    assert coder.encode(boxes, boxes).shape == (*lead, 4)
    assert coder.decode(torch.zeros(*lead, coder.width), boxes).shape == (*lead, 4)


@of_every_coder
@pytest.mark.parametrize(
    ("first", "anchors", "error", "message"),
    [
        pytest.param(
            torch.zeros(2, 5),
            torch.zeros(2, 5),
            ValueError,
            r"boxes must have shape \(\.\.\., 4\), got \(2, 5\)",
            id="last axis 5",
        ),
        pytest.param(
            torch.zeros(2, 4),
            torch.zeros(2, 2),
            ValueError,
            r"anchors must have shape \(\.\.\., 4\), got \(2, 2\)",
            id="points as anchors",
        ),
        pytest.param(
            torch.zeros(3, 4),
            torch.zeros(1, 4),
            ValueError,
            r"boxes and anchors must have the same shape, got \(3, 4\) and \(1, 4\)",
            id="no broadcasting",
        ),
        pytest.param(
            torch.zeros(2, 4).int(),
            torch.zeros(2, 4),
            TypeError,
            r"boxes must be floating point, got torch.int32",
            id="integer boxes",
        ),
        pytest.param(
            torch.zeros(2, 4),
            torch.zeros(2, 4).int(),
            TypeError,
            "anchors must be floating point, got torch.int32",
            id="integer anchors",
        ),
    ],
)
def test_encode_rejects(name, first, anchors, error, message):
    with pytest.raises(error, match=message):
        build(name).encode(first, anchors)


@of_every_coder
@pytest.mark.parametrize(
    ("extra_columns", "rows", "dtype", "error", "message"),
    [
        pytest.param(1, 2, torch.float32, ValueError, r"shape.*\(2, {more}\)", id="a column more"),
        pytest.param(0, 1, torch.float32, ValueError, r"shape.*\(1, {width}\)", id="broadcasting"),
        pytest.param(0, 2, torch.int64, TypeError, "floating point, got torch.int64", id="integer"),
    ],
)
def test_decode_rejects(name, extra_columns, rows, dtype, error, message):
    coder = build(name)
    regression = torch.zeros(rows, coder.width + extra_columns, dtype=dtype)
    message = message.replace("{more}", f"{coder.width + 1}").replace("{width}", f"{coder.width}")
    with pytest.raises(error, match=f"regression.*{message}"):
        coder.decode(regression, random_boxes(2))


@of_every_coder
def test_decode_rejects_points_as_anchors(name):
    coder = build(name)
    with pytest.raises(ValueError, match=r"anchors must have shape \(\.\.\., 4\), got \(2, 2\)"):
        coder.decode(torch.zeros(2, coder.width), torch.zeros(2, 2))


def test_a_size_is_bounded_above_with_its_gradient():
    """What is over the bound stays there: a wild prediction has a finite gradient, 0."""
    logs = torch.tensor([0.0, math.log(9e3), 1e3, math.inf, -1e3], requires_grad=True)
    sizes = bounded_exp(logs)
    assert_close(sizes, torch.tensor([1.0, 9e3, 1e4, 1e4, 0.0]))
    sizes.sum().backward()
    assert_close(logs.grad, torch.tensor([1.0, 9e3, 0.0, 0.0, 0.0]))


@given(box_pairs())
def test_centre_and_size_are_those_of_the_box_around_them(pair):
    for boxes in pair:
        centre, size = centre_and_size(boxes)
        assert_close(box_around(centre, size), boxes)


@pytest.mark.parametrize("spaces", [None, {"boxes"}, frozenset(), frozenset({"pixels"})])
def test_an_author_is_told_to_state_the_spaces(spaces):
    class Nameless(Coder):
        """Forgets where it may be used."""

    if spaces is not None:
        Nameless.spaces = spaces
    message = r"Nameless: .*write `spaces: ClassVar.* of 'boxes' or 'deltas' or 'bins', got"
    with pytest.raises(TypeError, match=message):
        Nameless.check_definition()
