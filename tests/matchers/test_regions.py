"""Boxes that cannot be matched, and what an ignore region does to the anchors in it."""

import pytest
import torch
from boxgen import random_boxes

from detloss.boxes import pairwise_overlap
from detloss.matchers.images import images_of
from detloss.matchers.regions import finite_only, keep_boxes
from detloss.tensors import without_host_sync

INF, NAN = float("inf"), float("nan")
REGION = [20.0, 0.0, 40.0, 40.0]
POINT = [0.0, 0.0, 0.0, 0.0]


def in_ignore_region(anchors, boxes, flags, ignore_overlap):
    """(A,) of one image."""
    return images_of([anchors], [boxes], gt_ignore=[flags]).in_ignore_region(ignore_overlap)[0]


def tensor(boxes):
    return torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)


@pytest.mark.parametrize(
    ("anchor", "inside"),
    [
        pytest.param([50.0, 0.0, 60.0, 10.0], False, id="elsewhere"),
        pytest.param([40.0, 0.0, 50.0, 10.0], False, id="touching"),
        pytest.param(REGION, True, id="the region itself"),
        pytest.param([30.0, 10.0, 32.0, 12.0], True, id="all of it inside, though IoU is tiny"),
        pytest.param([30.0, 0.0, 50.0, 10.0], True, id="1/2 of it inside, at the threshold"),
        pytest.param([31.0, 0.0, 51.0, 10.0], False, id="9/20 of it inside"),
        pytest.param([0.0, 0.0, 100.0, 100.0], False, id="around: 8/100 of it inside"),
        pytest.param([26.0, 6.0, 34.0, 14.0], True, id="a point of stride 8 inside"),
        pytest.param([36.0, 6.0, 44.0, 14.0], True, id="a point of stride 8 on the edge: 1/2"),
        pytest.param([37.0, 6.0, 45.0, 14.0], False, id="a point of stride 8 outside: 3/8"),
        pytest.param([30.0, 10.0, 30.0, 10.0], False, id="no area"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_share_worked_by_hand(anchor, inside, dtype):
    boxes = torch.tensor([REGION, [0.0, 0.0, 100.0, 100.0]], dtype=dtype)
    flags = torch.tensor([True, False])
    found = in_ignore_region(torch.tensor([anchor], dtype=dtype), boxes, flags, 0.5)
    assert found.tolist() == [inside]


def test_the_share_is_that_of_one_region():
    # 2/5 of the anchor in each of two regions, 4/5 in both together
    regions = tensor([[0.0, 0.0, 4.0, 10.0], [6.0, 0.0, 10.0, 10.0]])
    flags = torch.tensor([True, True])
    anchors = tensor([[0.0, 0.0, 10.0, 10.0]])
    assert in_ignore_region(anchors, regions, flags, 0.5).tolist() == [False]
    assert in_ignore_region(anchors, regions, flags, 0.4).tolist() == [True]


def test_a_share_of_0_needs_an_overlap():
    anchors, flags = tensor([[0.0, 0, 10, 10], [40, 0, 50, 10]]), torch.tensor([True])
    assert in_ignore_region(anchors, tensor([[9.0, 9, 20, 20]]), flags, 0.0).tolist() == [
        True,
        False,
    ]


@pytest.mark.parametrize("seed", range(3))
def test_every_anchor_agrees_with_the_matrix_of_shares(seed, monkeypatch):
    anchors, boxes = random_boxes(200, seed=seed), random_boxes(9, seed=seed + 50)
    flags = torch.arange(9) % 3 == 0
    share = pairwise_overlap(anchors, boxes[flags], kind="iof").amax(1)
    assert torch.equal(in_ignore_region(anchors, boxes, flags, 0.3), share >= 0.3)
    with without_host_sync():
        assert torch.equal(in_ignore_region(anchors, boxes, flags, 0.3), share >= 0.3)
    monkeypatch.setattr("detloss.matchers.tiles.CPU_PAIRS", 40)
    monkeypatch.setattr("detloss.matchers.tiles.TILE", 3)
    assert torch.equal(in_ignore_region(anchors, boxes, flags, 0.3), share >= 0.3)


@pytest.mark.parametrize("flags", [None, [False, False]])
def test_no_region_no_share(flags):
    flags = None if flags is None else torch.tensor(flags)
    found = in_ignore_region(random_boxes(5), random_boxes(2), flags, 0.0)
    assert found.tolist() == [False] * 5


@pytest.mark.parametrize("region", [[NAN, 0.0, 100.0, 100.0], [NAN] * 4])
def test_a_region_that_is_no_number_hides_no_other(region):
    anchors, regions = tensor([[0.0, 0, 10, 10]]), tensor([region, [0.0, 0, 10, 10]])
    assert in_ignore_region(anchors, regions[:1], torch.tensor([True]), 0.5).tolist() == [False]
    assert in_ignore_region(anchors, regions, torch.tensor([True, True]), 0.5).tolist() == [True]


def test_a_region_may_be_the_whole_plane():
    regions = tensor([[-INF, -INF, INF, INF]])
    assert in_ignore_region(tensor([[0.0, 0, 9, 9]]), regions, torch.tensor([True]), 1.0).all()


def test_keep_boxes_shrinks_the_others_to_a_point():
    boxes = keep_boxes(tensor([REGION, [NAN, 1.0, 2.0, INF]]), torch.tensor([True, False]))
    assert boxes.tolist() == [REGION, POINT]


@pytest.mark.parametrize(
    "box",
    [
        pytest.param([NAN, 0.0, 1.0, 1.0], id="not a number"),
        pytest.param([0.0, 0.0, INF, 1.0], id="infinite"),
        pytest.param([-1e30, -1e30, 1e30, 1e30], id="an area of 4e60"),
    ],
)
@pytest.mark.parametrize("host_sync", [True, False])
def test_what_has_no_finite_area_is_a_point(box, host_sync):
    boxes = torch.tensor([REGION, box])
    if host_sync:
        assert finite_only(boxes).tolist() == [REGION, POINT]
    else:
        with without_host_sync():
            assert finite_only(boxes).tolist() == [REGION, POINT]


def test_finite_boxes_are_handed_on_without_a_copy():
    boxes = random_boxes(5)
    assert finite_only(boxes) is boxes
