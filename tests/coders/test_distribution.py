"""The coder of distances as distributions. What holds for every coder is in test_base.py."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from boxgen import random_boxes
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from detloss.boxes import grid_points, paired_overlap
from detloss.coders import DistributionCoder, LTRBCoder
from detloss.kernels import BLOCK
from detloss.tensors import without_host_sync

GOLDEN = Path(__file__).parents[1] / "golden"
ANCHOR = [0.0, 16.0, 8.0, 24.0]  # centre (4, 20), side 8


def reference_decode(logits, anchor, bins):
    """Generalized focal loss, equations 3 to 5, on Python floats."""
    distances = []
    for side in range(4):
        exponentials = [math.exp(z) for z in logits[side * bins : (side + 1) * bins]]
        distances.append(sum(k * e for k, e in enumerate(exponentials)) / sum(exponentials))
    x, y, unit = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2, anchor[2] - anchor[0]
    left, top, right, bottom = (unit * distance for distance in distances)
    return [x - left, y - top, x + right, y + bottom]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param(ANCHOR, [0.5] * 4, id="the anchor: half a side all around"),
        pytest.param([-4.0, 4, 12, 52], [1.0, 2, 1, 4], id="left, top, right, bottom"),
        pytest.param([6.0, 4, 12, 52], [0.0, 2, 1, 4], id="centre outside: not below 0"),
        pytest.param([-60.0, 4, 12, 84], [6.75, 2, 1, 6.75], id="8 bins end at 7 less 1/4"),
        pytest.param([-50.0, 4, 12, 73.6], [6.75, 2, 1, 6.7], id="54 / 8 is 6.75, 53.6 / 8 less"),
    ],
)
def test_encode_worked_by_hand(box, expected):
    coder = DistributionCoder(bins=8, margin=0.25)
    distances = coder.encode(torch.tensor([box]), torch.tensor([ANCHOR]))
    assert_close(distances, torch.tensor([expected]))


@pytest.mark.parametrize(
    ("bins", "margin", "largest"),
    [
        pytest.param(16, 0.01, 14.99, id="YOLOv8"),
        pytest.param(17, 0.1, 15.9, id="generalized focal loss in mmdetection"),
        pytest.param(2, 0.0, 1.0, id="the fewest"),
    ],
)
def test_the_margin_keeps_targets_below_the_last_bin(bins, margin, largest):
    coder = DistributionCoder(bins=bins, margin=margin)
    far = torch.tensor([[-1e4, -1e4, 1e4, 1e4]])
    assert_close(coder.encode(far, torch.tensor([ANCHOR])), torch.full((1, 4), largest))


def test_decode_worked_by_hand():
    shares = torch.tensor(
        [[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0, 0.5, 0.5, 0], [0, 0, 0.25, 0.75]]
    )
    logits = shares.clamp(min=1e-30).log().view(1, 16)
    decoded = DistributionCoder(bins=4).decode(logits, torch.tensor([ANCHOR]))
    # expected bins 0, 1.5, 1.5 and 2.75, of 8 each, from (4, 20)
    assert_close(decoded, torch.tensor([[4.0, 8.0, 16.0, 42.0]]))


@given(st.integers(0, 2**31), st.integers(2, 33))
def test_decode_matches_the_paper(seed, bins):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(5, 4 * bins, generator=generator, dtype=torch.float64)
    centre = 100 * torch.rand(5, 2, generator=generator, dtype=torch.float64)
    anchors = torch.cat([centre - 4, centre + 4], dim=-1)
    pairs = zip(logits.tolist(), anchors.tolist(), strict=True)
    expected = [reference_decode(*pair, bins) for pair in pairs]
    decoded = DistributionCoder(bins=bins).decode(logits, anchors)
    assert_close(decoded, torch.tensor(expected, dtype=torch.float64))
    assert torch.equal(decoded, DistributionCoder(bins=bins).decode(logits, anchors))
    with_graph = DistributionCoder(bins=bins).decode(logits.requires_grad_(), anchors)
    assert_close(with_graph.detach(), decoded)


def test_logits_are_left_as_they_are():
    logits = torch.randn(3, 64)
    before = logits.clone()
    DistributionCoder().decode(logits, random_boxes(3, dtype=torch.float32))
    assert torch.equal(logits, before)


@given(st.integers(0, 2**31))
def test_decoded_boxes_are_never_inverted(seed):
    logits = 100 * torch.randn(16, 64, generator=torch.Generator().manual_seed(seed))
    decoded = DistributionCoder().decode(logits, random_boxes(16, seed=seed, dtype=torch.float32))
    assert (decoded[:, 2:] >= decoded[:, :2]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_logits_as_large_as_the_dtype_holds(dtype):
    logits = torch.full((1, 4, 8), torch.finfo(dtype).min, dtype=dtype)
    logits[..., 3] = torch.finfo(dtype).max
    logits = logits.flatten(-2).requires_grad_()
    boxes = DistributionCoder(bins=8).decode(logits, torch.tensor([ANCHOR]))
    assert boxes.tolist() == [[-20.0, -4.0, 28.0, 44.0]]  # 3 sides of 8 from (4, 20)
    boxes.sum().backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("seed", [0, 1])
def test_overlaps_of_decoded_boxes_are_mmdetections(seed):
    """Generalized focal loss's soft labels are the IoU of a decoded prediction with its truth."""
    coder = DistributionCoder(bins=17, margin=0.1)
    with np.load(GOLDEN / "mmdet" / f"gfl_seed{seed}.npz") as golden:
        anchors, _ = grid_points(golden["level_shapes"].tolist(), [8, 16, 32, 64, 128], 0.0)
        for image, logits in enumerate(torch.from_numpy(golden["pred_bbox_preds"])):
            match = torch.from_numpy(golden[f"match_{image}"]).long()
            positive = match >= 0
            boxes = torch.from_numpy(golden[f"gt_boxes_{image}"])[match[positive]]
            decoded = coder.decode(logits[positive], anchors[positive])
            expected = torch.from_numpy(golden["target_score"][image])[positive]
            assert_close(paired_overlap(decoded, boxes, kind="iou"), expected)


def test_encodes_as_distances_in_sides_of_the_anchor():
    boxes, anchors = random_boxes(200, seed=1), random_boxes(200, seed=2)
    distances = LTRBCoder(normalize=True).encode(boxes, anchors)
    inside = ((distances > 0) & (distances < 14)).all(1)
    assert inside.any()
    encoded = DistributionCoder().encode(boxes, anchors)
    assert torch.equal(encoded[inside], distances[inside])


def test_columns_are_those_of_its_bins():
    message = r"regression must have shape \(2, 64\), 4 x 16 columns .*, got \(2, 68\)"
    with pytest.raises(ValueError, match=message):
        DistributionCoder().decode(torch.zeros(2, 68), torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bins": 1}, ValueError, "bins: expected a value greater than or equal to 2, got 1"),
        ({"bins": 16.0}, TypeError, "bins: expected a valid integer, got 16.0"),
        ({"margin": -0.1}, ValueError, "margin: expected a value greater than or equal to 0"),
        ({"margin": 1.5}, ValueError, "margin: expected a value less than or equal to 1"),
        ({"reg_max": 16}, TypeError, "reg_max"),
    ],
)
def test_rejects_options(options, error, message):
    with pytest.raises(error, match=message):
        DistributionCoder(**options)


@pytest.mark.parametrize("transposed", [False, True])
def test_blocks_are_the_whole_to_the_bit(transposed):
    """More logits than a block has, as a matcher decodes them."""
    coder, anchors = DistributionCoder(bins=16), random_boxes(5000)[None].expand(2, -1, -1)
    logits = torch.randn(2, 5000, coder.width)
    if transposed:
        logits = logits.transpose(1, 2).contiguous().transpose(1, 2)
    assert logits.numel() > 2 * BLOCK
    with without_host_sync():
        whole = coder.decode(logits, anchors)
    assert torch.equal(coder.decode(logits, anchors), whole)
