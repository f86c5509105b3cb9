"""FCOS matching: by hand, against the paper in loops, against torchvision, and golden matches."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matching import N, X, said, said_by_original
from parity.golden import Golden
from torchvision.models.detection.fcos import FCOS

from detloss.matchers import FCOSMatcher

GOLDEN = Path(__file__).parents[1] / "golden"
INF = float("inf")


def squares(points):
    """(A, 4) squares of points (x, y, stride)."""
    x, y, stride = torch.tensor(points, dtype=torch.float64).reshape(-1, 3).unbind(1)
    half = stride / 2
    return torch.stack([x - half, y - half, x + half, y + half], 1)


def tensor(boxes):
    return torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)


def pyramid(size, strides, *, offset=0.5):
    """Points (x, y, stride) of square feature maps, the finest first."""
    return [
        ((i + offset) * stride, (j + offset) * stride, stride)
        for stride in strides
        for j in range(size // stride)
        for i in range(size // stride)
    ]


def reference_match(points, truths, ignore, *, radius, level_range, convention, ignore_overlap):
    """FCOS, sections 3.1 and 3.2, point by point on Python floats.

    The paper says that a location with ``max(l, t, r, b) > m_i`` or ``< m_(i-1)`` is negative, and
    that of several boxes the one with minimal area is chosen.
    """
    strides = [stride for _, _, stride in points]
    answers = []
    for x, y, stride in points:
        low = 0 if stride == min(strides) else level_range[0] * stride
        high = INF if stride == max(strides) else level_range[1] * stride
        least, index, inside = INF, None, False
        for i, (x1, y1, x2, y2) in enumerate(truths):
            if ignore[i]:
                width = min(x + stride / 2, x2) - max(x - stride / 2, x1)
                height = min(y + stride / 2, y2) - max(y - stride / 2, y1)
                shared = max(width, 0) * max(height, 0)
                inside |= shared > 0 and shared >= ignore_overlap * stride**2
                continue
            distances = (x - x1, y - y1, x2 - x, y2 - y)
            far = max(distances)
            fits = low <= far <= high if convention == "paper" else low < far < high
            if radius is not None:
                away = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2))
                fits = fits and away < radius * stride
            area = (x2 - x1) * (y2 - y1)
            if min(distances) > 0 and fits and area < least:
                least, index = area, i
        answers.append(X if index is None and inside else N if index is None else index)
    return answers


boxes = st.lists(
    st.tuples(*[st.integers(-4, 12)] * 2, *[st.integers(0, 16)] * 2).map(
        lambda box: [float(v) for v in (box[0], box[1], box[0] + box[2], box[1] + box[3])]
    ),
    max_size=6,
)


@given(boxes, st.sampled_from([(1,), (1, 2), (1, 2, 4)]), st.data())
def test_every_point_matches_the_paper(truths, strides, data):
    """On a grid, where distances that equal an end of the range and equal areas are common."""
    ignore = data.draw(st.lists(st.booleans(), min_size=len(truths), max_size=len(truths)))
    options = {
        "radius": data.draw(st.sampled_from([None, 0.5, 1.0, 1.5])),
        "level_range": data.draw(st.sampled_from([(1.0, 2.0), (1.5, 3.0), (0.0, 4.0)])),
        "convention": data.draw(st.sampled_from(["paper", "torchvision"])),
        "ignore_overlap": data.draw(st.sampled_from([0.25, 0.5, 1.0])),
    }
    points = pyramid(8, strides)
    flags = torch.tensor(ignore, dtype=torch.bool)
    matches = FCOSMatcher(**options)(squares(points), tensor(truths), gt_ignore=flags)
    assert said(matches) == reference_match(points, truths, ignore, **options)


@pytest.mark.parametrize("name", ["yolo/tv_fcos", "mmdet/fcos", "mmdet/fcos_center"])
@pytest.mark.parametrize("seed", [0, 1])
def test_matches_of_originals(name, seed):
    options = {"radius": None if name == "mmdet/fcos" else 1.5}
    if name.startswith("yolo"):
        options["convention"] = "torchvision"
    matcher, positives = FCOSMatcher(**options), 0
    golden = Golden.read(GOLDEN / f"{name}_seed{seed}.npz")
    for target, matched in zip(golden.targets(), golden.matched(), strict=True):
        matches = matcher(golden.points(), target["boxes"])
        assert said(matches) == said_by_original(matched.tolist())
        positives += int(matches.positive.sum())
    assert positives > 30


TRUTH = [0.0, 0.0, 40.0, 20.0]


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        pytest.param((4.0, 4.0, 8.0), 0, id="inside"),
        pytest.param((39.5, 19.5, 8.0), 0, id="just inside, most of its square outside"),
        pytest.param((0.0, 10.0, 8.0), N, id="on the edge: l = 0"),
        pytest.param((40.0, 10.0, 8.0), N, id="on the edge: r = 0"),
        pytest.param((20.0, 20.0, 8.0), N, id="on the edge: b = 0"),
        pytest.param((44.0, 10.0, 8.0), N, id="outside, though its square touches"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_inside_worked_by_hand(point, expected, dtype):
    matches = FCOSMatcher()(squares([point]).to(dtype), torch.tensor([TRUTH], dtype=dtype))
    assert said(matches) == [expected]


@pytest.mark.parametrize(
    ("truth", "paper", "torchvision"),
    [
        pytest.param([-60.0, 0.0, 30.0, 30.0], "pNN", "pNN", id="farthest side at 62 of 8: first"),
        pytest.param([-70.0, 0.0, 30.0, 30.0], "NpN", "NpN", id="at 72 of 16: second"),
        pytest.param([-126.0, 0.0, 30.0, 30.0], "Npp", "NNN", id="at 128 = 8 x 16 = 4 x 32"),
        pytest.param([-130.0, 0.0, 30.0, 30.0], "NNp", "NNp", id="at 132 of 32: third"),
        pytest.param([-9e5, 0.0, 30.0, 30.0], "NNp", "NNp", id="the largest stride has no end"),
        pytest.param([1.0, 1.0, 3.0, 3.0], "pNN", "pNN", id="the smallest stride begins at 0"),
        pytest.param([-62.0, 0.0, 30.0, 30.0], "ppN", "NNN", id="at 64 = 8 x 8 = 4 x 16"),
    ],
)
def test_level_ranges_worked_by_hand(truth, paper, torchvision):
    points = [(2.0, 2.0, 8.0), (2.0, 2.0, 16.0), (2.0, 2.0, 32.0)]
    for convention, word in (("paper", paper), ("torchvision", torchvision)):
        matches = FCOSMatcher(convention=convention)(squares(points), tensor([truth]))
        assert "".join("p" if one == 0 else "N" for one in said(matches)) == word


@pytest.mark.parametrize("stride", [8.0, 32.0])
@pytest.mark.parametrize("side", [0.5, 16.0, 100.0])
def test_points_of_one_level_match_every_size(stride, side):
    points = squares([(0.0, 0.0, stride), (90.0, 0.0, stride)])
    half = side / 2
    assert said(FCOSMatcher()(points, tensor([[-half, -half, half, half]]))) == [0, N]


def test_rounded_corners_do_not_make_levels():
    """A stride of 1/80 of the image: squares have many sides in float32."""
    x = (torch.arange(80, dtype=torch.float32) + 0.5) / 80
    centre = torch.stack([x, torch.full_like(x, 0.5)], 1)
    anchors = torch.cat([centre - 1 / 160, centre + 1 / 160], 1)
    assert (anchors[:, 2] - anchors[:, 0]).unique().numel() > 1
    matches = FCOSMatcher()(anchors, torch.tensor([[0.0, 0.48, 0.999, 0.52]]))
    assert matches.positive.all()


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        pytest.param((50.0, 50.0, 8.0), 0, id="the centre"),
        pytest.param((61.0, 39.0, 8.0), 0, id="11 away along both axes"),
        pytest.param((62.0, 50.0, 8.0), N, id="12 = 1.5 x 8 away along one: not below"),
        pytest.param((70.0, 50.0, 8.0), N, id="20 away"),
    ],
)
def test_radius_worked_by_hand(point, expected):
    matches = FCOSMatcher(radius=1.5)(squares([point]), tensor([[0.0, 0.0, 100.0, 100.0]]))
    assert said(matches) == [expected]


def test_near_the_centre_is_not_enough():
    """4 from the centre of a box of 6: outside."""
    matches = FCOSMatcher(radius=1.5)(squares([(7.0, 3.0, 8.0)]), tensor([[0.0, 0.0, 6.0, 6.0]]))
    assert said(matches) == [N]


@pytest.mark.parametrize(
    ("truths", "paper", "torchvision"),
    [
        pytest.param([[0, 0, 90, 90], [0, 0, 30, 30]], 1, 1, id="the smaller"),
        pytest.param([[0, 0, 30, 30], [0, 0, 90, 90]], 0, 0, id="the smaller, first"),
        pytest.param([[0, 0, 30, 20], [0, 0, 20, 30]], 0, 0, id="equal areas: the first"),
        pytest.param(
            [[0, 0, 100.03, 100], [0, 0, 100, 100]], 1, 0, id="10,003 and 10,000 tie in torchvision"
        ),
        pytest.param([[0, 0, 100.2, 100], [0, 0, 100, 100]], 1, 1, id="10,020 and 10,000 do not"),
        pytest.param(
            [[-5000, -5000, 5000, 5001]], 0, N, id="an area above 1e8 is none to torchvision"
        ),
    ],
)
def test_several_truths_worked_by_hand(truths, paper, torchvision):
    points, truths = squares([(8.0, 8.0, 8.0)]).float(), tensor(truths).float()
    assert said(FCOSMatcher()(points, truths)) == [paper]
    assert said(FCOSMatcher(convention="torchvision")(points, truths)) == [torchvision]


def torchvision_match(points, truths, sizes):
    """What torchvision's own loss hands to its head, whose networks are not needed for it."""
    seen = []
    head = SimpleNamespace(compute_loss=lambda *inputs: seen.append(inputs[3][0]))
    model = SimpleNamespace(center_sampling_radius=1.5, head=head)
    FCOS.compute_loss(model, [{"boxes": truths}], {}, [points], sizes)
    return [N if index < 0 else index for index in seen[0].tolist()]


@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_torchvision(seed):
    strides = [8, 16, 32, 64]
    points = squares(pyramid(256, strides, offset=0)).float()
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(12, 2, generator=generator) * 200 - 10
    truths = torch.cat([corner, corner + torch.rand(12, 2, generator=generator) ** 2 * 200 + 4], 1)
    truths[6:8] = truths[4:6] + 0.003  # areas that tie in float32 around 1e8
    expected = torchvision_match(points, truths, [(256 // s) ** 2 for s in strides])
    assert sum(answer != N for answer in expected) > 20
    matcher = FCOSMatcher(radius=1.5, convention="torchvision")
    assert said(matcher(points, truths)) == expected


@pytest.mark.parametrize(
    "truth",
    [
        pytest.param([30.0, 4.0, 30.0, 4.0], id="a point"),
        pytest.param([0.0, 4.0, 60.0, 4.0], id="flat"),
        pytest.param([60.0, 60.0, 0.0, 0.0], id="inverted"),
        pytest.param([0.0, 0.0, INF, 60.0], id="infinite"),
        pytest.param([float("nan"), 0.0, 60.0, 60.0], id="not a number"),
    ],
)
def test_a_degenerate_truth_claims_nothing(truth):
    points = squares(pyramid(64, [8, 16]))
    assert not FCOSMatcher()(points, tensor([truth])).positive.any()
    with_other = FCOSMatcher()(points, tensor([truth, [0.0, 0.0, 60.0, 60.0]]))
    assert set(said(with_other)) == {1, N}


def test_a_point_that_is_not_finite_matches_nothing_and_is_no_level():
    points = squares(pyramid(64, [8, 16]))
    truths = tensor([[-5.0, -5.0, 60.0, 60.0], [3.0, 3.0, 20.0, 20.0]])
    expected = said(FCOSMatcher()(points, truths))
    broken = torch.cat([tensor([[float("nan")] * 4, [0.0, 0.0, INF, 8.0]]), points])
    assert said(FCOSMatcher()(broken, truths)) == [N, N, *expected]
    assert len(set(expected)) == 3


def test_needs_nothing_but_boxes():
    assert FCOSMatcher.needs == frozenset()
    assert not FCOSMatcher.scores


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"radius": 0.0}, ValueError, "radius: expected a value greater than 0"),
        ({"level_range": [4.0]}, ValueError, "level_range: expected at least 2 values"),
        (
            {"level_range": [8.0, 4.0]},
            ValueError,
            r"level_range must be \(m1, m2\) with m1 < m2, got \[8\.0, 4\.0\]",
        ),
        ({"convention": "mmdet"}, ValueError, "convention: expected 'paper' or 'torchvision'"),
        ({"ignore_overlap": 1.5}, ValueError, "ignore_overlap: .* less than or equal to 1"),
    ],
)
def test_rejects_options(options, error, message):
    with pytest.raises(error, match=message):
        FCOSMatcher(**options)
