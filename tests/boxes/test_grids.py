"""Grids of anchors: by hand, and to the bit those that the originals made."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from detloss.boxes import anchor_strides, grid_anchors, grid_points

GOLDEN = Path(__file__).parents[1] / "golden"
STRIDES = [8, 16, 32, 64, 128]
RATIOS = [0.5, 1.0, 2.0]
OCTAVES = [2 ** (i / 3) for i in range(3)]
SIDES = [[int(size * octave) for octave in OCTAVES] for size in (32, 64, 128, 256, 512)]

SQUARES = {"scales": [8]}
MMDET_RETINANET = {"scales": [4 * octave for octave in OCTAVES], "ratios": RATIOS}
TORCHVISION_RETINANET = {"sides": SIDES, "ratios": RATIOS, "rounded": True}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("yolo/tv_retinanet", TORCHVISION_RETINANET),
        ("mmdet/retinanet_l1", MMDET_RETINANET),
        ("mmdet/atss", SQUARES),
        ("mmdet/gfl", SQUARES),
    ],
)
def test_anchors_are_the_originals(file, options, seed):
    with np.load(GOLDEN / f"{file}_seed{seed}.npz") as golden:
        anchors, level_sizes = grid_anchors(golden["level_shapes"].tolist(), STRIDES, **options)
        assert torch.equal(anchors, torch.from_numpy(golden["anchors"]))
        assert level_sizes == golden["level_sizes"].tolist()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("file", ["mmdet/fcos", "mmdet/fcos_center"])
def test_points_are_the_originals(file, seed):
    with np.load(GOLDEN / f"{file}_seed{seed}.npz") as golden:
        anchors, level_sizes = grid_points(golden["level_shapes"].tolist(), STRIDES)
        centres, sides = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
        assert torch.equal(centres, torch.from_numpy(golden["points"]))
        assert torch.equal(sides, torch.from_numpy(golden["strides"])[:, None].expand(-1, 2))
        assert level_sizes == golden["level_sizes"].tolist()


@pytest.mark.parametrize("seed", [0, 1])
def test_points_in_the_corner_are_torchvisions(seed):
    with np.load(GOLDEN / f"yolo/tv_fcos_seed{seed}.npz") as golden:
        anchors, level_sizes = grid_points(golden["level_shapes"].tolist(), STRIDES, 0.0)
        assert torch.equal(anchors, torch.from_numpy(golden["anchors"]))
        assert level_sizes == golden["level_sizes"].tolist()


@pytest.mark.parametrize(
    ("offset", "rows"),
    [
        pytest.param(
            0.5,
            [
                [[0, 0, 8, 8], [8, 0, 16, 8], [16, 0, 24, 8]],
                [[0, 8, 8, 16], [8, 8, 16, 16], [16, 8, 24, 16]],
                [[0, 0, 16, 16]],
            ],
            id="the cell itself: row by row, then the next level",
        ),
        pytest.param(
            0.0,
            [
                [[-4, -4, 4, 4], [4, -4, 12, 4], [12, -4, 20, 4]],
                [[-4, 4, 4, 12], [4, 4, 12, 12], [12, 4, 20, 12]],
                [[-8, -8, 8, 8]],
            ],
            id="around its corner",
        ),
    ],
)
def test_points_worked_by_hand(offset, rows):
    anchors, level_sizes = grid_points([(2, 3), (1, 1)], [8, 16], offset)
    assert anchors.tolist() == [anchor for row in rows for anchor in row]
    assert level_sizes == [6, 1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"scales": [2]}, [[-8, -8, 8, 8]], id="two strides of 8"),
        pytest.param({"sides": [[6]]}, [[-3, -3, 3, 3]], id="a side in pixels"),
        pytest.param(
            {"sides": [[4, 8]], "ratios": [0.25, 4]},
            [[-4, -1, 4, 1], [-8, -2, 8, 2], [-1, -4, 1, 4], [-2, -8, 2, 8]],
            id="high by wide; ratio, then side",
        ),
        pytest.param(
            {"sizes": [[(20, 10), (4, 6)]]}, [[-10, -5, 10, 5], [-2, -3, 2, 3]], id="width, height"
        ),
        pytest.param(
            {"sizes": [[(20, 10)]], "ratios": [1, 4]},
            [[-10, -5, 10, 5], [-5, -10, 5, 10]],
            id="sizes are stretched too",
        ),
        pytest.param(
            {"sides": [[3, 5, 6.8]], "rounded": True},
            [[-2, -2, 2, 2], [-2, -2, 2, 2], [-3, -3, 3, 3]],
            id="1.5 and 2.5 to 2, the even one; 3.4 to 3",
        ),
        pytest.param(
            {"sides": [[3]], "offset": 0.25, "rounded": True},
            [[0, 0, 4, 4]],
            id="rounded around the centre (2, 2)",
        ),
    ],
)
def test_anchors_of_a_cell_worked_by_hand(options, expected):
    anchors, level_sizes = grid_anchors([(1, 1)], [8], **options)
    assert anchors.tolist() == expected
    assert level_sizes == [len(expected)]


def test_strides_may_differ_by_axis():
    anchors, _ = grid_points([(2, 2)], [(4, 10)])  # 4 down, 10 across
    assert anchors.tolist() == [[0, 0, 10, 4], [10, 0, 20, 4], [0, 4, 10, 8], [10, 4, 20, 8]]
    as_list, _ = grid_points([(2, 2)], [[4, 10]])
    assert torch.equal(as_list, anchors)


def test_ratios_keep_the_area():
    ratios = [1 / 3, 0.7, 1.0, 5.0]
    anchors, _ = grid_anchors([(3, 2)], [8], scales=[4], ratios=ratios, dtype=torch.float64)
    width, height = (anchors[:, 2:] - anchors[:, :2]).unbind(-1)
    assert_close(width * height, torch.full_like(width, 32.0**2))
    assert_close((height / width).view(6, 4), torch.tensor([ratios] * 6, dtype=torch.float64))


def test_a_level_may_be_empty_and_levels_may_have_different_numbers_a_cell():
    sizes = [[(10, 10)], [(20, 20), (30, 10)], [(40, 40)]]
    anchors, level_sizes = grid_anchors([(2, 2), (1, 3), (0, 5)], [8, 16, 32], sizes=sizes)
    assert level_sizes == [4, 6, 0]
    assert anchors.shape == (10, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype(dtype):
    anchors, _ = grid_points([(1, 300)], [8], dtype=dtype)
    assert anchors.dtype == dtype
    expected, _ = grid_points([(1, 300)], [8])  # bfloat16 itself cannot count to 300
    assert torch.equal(anchors, expected.to(dtype))


def test_device():
    anchors, level_sizes = grid_anchors([(2, 2)], [8], scales=[1], ratios=RATIOS, device="meta")
    assert anchors.device.type == "meta"
    assert (anchors.shape, level_sizes) == ((12, 4), [12])


def test_shapes_may_be_those_of_feature_maps():
    maps = [torch.zeros(2, 256, 3, 4), torch.zeros(2, 256, 2, 2)]
    anchors, level_sizes = grid_points([m.shape[-2:] for m in maps], [8, 16])
    assert level_sizes == [12, 4]
    assert len(anchors) == 16


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        pytest.param(
            ([(1, 1)] * 5, [8, 16, 32, 64]),
            {"scales": [1]},
            "strides must have one entry for each of 5 levels, got 4",
            id="a stride is missing",
        ),
        pytest.param(
            ([(1, 1)] * 2, [8, 16]),
            {"sides": [[32]]},
            "sides must have one entry for each of 2 levels, got 1",
            id="one list of sides for all levels",
        ),
        pytest.param(([], []), {"scales": [1]}, "at least one level, got none", id="no level"),
        pytest.param(
            ([(1, 1)], [8]), {}, "exactly one of scales, sides and sizes must be given", id="none"
        ),
        pytest.param(
            ([(1, 1)], [8]),
            {"scales": [1], "sides": [[8]]},
            r"must be given, got scales=\[1\], sides=\[\[8\]\], sizes=None",
            id="two",
        ),
        pytest.param(
            ([(1, 1)], [0]), {"scales": [1]}, r"strides must be greater than 0, got \[0\]", id="0"
        ),
        pytest.param(
            ([(1, 1)], [8]),
            {"sizes": [[(8, math.nan)]]},
            r"sizes must be greater than 0, got \[\[\(8, nan\)\]\]",
            id="nan",
        ),
        pytest.param(
            ([(1, 1)], [8]), {"scales": [1], "ratios": [-1.0]}, "ratios must be", id="a ratio below"
        ),
    ],
)
def test_rejects(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        grid_anchors(*arguments, **options)


@pytest.mark.parametrize("seed", [0, 1])
def test_strides_of_anchors_are_mmdetections(seed):
    with np.load(GOLDEN / "mmdet" / f"retinanet_l1_seed{seed}.npz") as golden:
        strides = anchor_strides(golden["level_sizes"].tolist(), STRIDES)
        assert strides.tolist() == golden["strides"].tolist()


def test_the_stride_of_a_point_is_its_side():
    points, level_sizes = grid_points([(3, 4), (2, 2)], [8, 16], dtype=torch.float64)
    strides = anchor_strides(level_sizes, [8, 16], dtype=torch.float64)
    assert torch.equal(strides, points[:, 2] - points[:, 0])


@pytest.mark.parametrize(
    ("level_sizes", "strides", "message"),
    [
        ([4, 1], [8], "strides must have one entry for each of 2 levels, got 1"),
        ([], [], "level_sizes must have at least one level, got none"),
    ],
)
def test_rejects_strides_of_other_levels(level_sizes, strides, message):
    with pytest.raises(ValueError, match=message):
        anchor_strides(level_sizes, strides)


def test_compiles_to_one_graph():
    def grids(features):
        shapes = [level.shape[-2:] for level in features]
        points, level_sizes = grid_points(shapes, [8, 16])
        strides = anchor_strides(level_sizes, [8, 16])
        return points, strides, *grid_anchors(shapes, [8, 16], **SQUARES)

    features = [torch.zeros(1, 3, 4), torch.zeros(1, 2, 2)]
    compiled = torch.compile(grids, fullgraph=True, backend="eager")
    assert_close(compiled(features), grids(features))
