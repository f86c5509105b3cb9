"""The coder of distances to the four sides. What holds for every coder is in test_base.py."""

from pathlib import Path

import numpy as np
import pytest
import torch
from boxgen import box_pairs, random_boxes
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from torchvision.models.detection._utils import BoxLinearCoder

from detloss.boxes import grid_points
from detloss.coders import LTRBCoder

GOLDEN = Path(__file__).parents[1] / "golden"
ANCHOR = [0.0, 10.0, 8.0, 26.0]  # centre (4, 18), 8 wide, 16 high


def reference_encode(box, anchor, normalize):
    """FCOS, equation 1, on Python floats."""
    x, y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
    w, h = (anchor[2] - anchor[0], anchor[3] - anchor[1]) if normalize else (1, 1)
    return [(x - box[0]) / w, (y - box[1]) / h, (box[2] - x) / w, (box[3] - y) / h]


@pytest.mark.parametrize(
    ("box", "normalize", "expected"),
    [
        pytest.param(ANCHOR, True, [0.5] * 4, id="the anchor: half a side all around"),
        pytest.param(ANCHOR, False, [4.0, 8, 4, 8], id="the anchor, in its unit"),
        pytest.param(
            [0.0, 2.0, 20.0, 22.0], True, [0.5, 1, 2, 0.25], id="4, 16, 16, 4: by width and height"
        ),
        pytest.param([0.0, 2.0, 20.0, 22.0], False, [4.0, 16, 16, 4], id="in the order l, t, r, b"),
        pytest.param(
            [6.0, 18.0, 8.0, 20.0], False, [-2.0, 0, 4, 2], id="centre left of the box: negative"
        ),
        pytest.param([4.0, 18.0, 4.0, 18.0], True, [0.0] * 4, id="a point on the centre"),
    ],
)
def test_worked_by_hand(box, normalize, expected):
    coder = LTRBCoder(normalize=normalize)
    box, anchor, distances = (torch.tensor([row]) for row in (box, ANCHOR, expected))
    assert_close(coder.encode(box, anchor), distances)
    assert_close(coder.decode(distances, anchor), box)


@given(box_pairs(), st.booleans())
def test_encode_matches_the_paper_and_decode_undoes_it(pair, normalize):
    boxes, anchors = pair
    expected = [
        reference_encode(box, anchor, normalize)
        for box, anchor in zip(boxes.tolist(), anchors.tolist(), strict=True)
    ]
    coder = LTRBCoder(normalize=normalize)
    distances = coder.encode(boxes, anchors)
    assert_close(distances, torch.tensor(expected, dtype=torch.float64))
    assert_close(coder.decode(distances, anchors), boxes)


@pytest.mark.parametrize("normalize", [False, True])
def test_agrees_with_torchvision(normalize):
    boxes, anchors = random_boxes(200, seed=1), random_boxes(200, seed=2)
    ours, theirs = LTRBCoder(normalize=normalize), BoxLinearCoder(normalize_by_size=normalize)
    distances = theirs.encode(anchors, boxes)  # the anchors come first there
    assert_close(ours.encode(boxes, anchors), distances)
    assert_close(ours.decode(distances, anchors), theirs.decode(distances, anchors))


def test_distances_below_0_may_invert_the_box():
    decoded = LTRBCoder(normalize=False).decode(
        torch.tensor([[1.0, 2.0, -3.0, 4.0]]), torch.tensor([ANCHOR])
    )
    assert decoded.tolist() == [[3.0, 16.0, 1.0, 22.0]]


def test_an_anchor_without_area_has_finite_distances():
    point, box = torch.tensor([[4.0, 18.0, 4.0, 18.0]]), torch.tensor([ANCHOR])
    coder = LTRBCoder()
    distances = coder.encode(box, point)
    assert_close(distances, torch.tensor([[4e6, 8e6, 4e6, 8e6]]))  # sides of 1e-6 at least
    assert_close(coder.decode(distances, point), box)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("name", "normalize"), [("fcos", False), ("fcos_center", True)])
def test_centerness_of_the_encoded_truth_is_mmdetections(name, normalize, seed):
    """The original's own targets: a distance at the wrong side would change them."""
    with np.load(GOLDEN / "mmdet" / f"{name}_seed{seed}.npz") as golden:
        anchors, _ = grid_points(golden["level_shapes"].tolist(), [8, 16, 32, 64, 128])
        for image, expected in enumerate(golden["target_centerness"]):
            match = torch.from_numpy(golden[f"match_{image}"]).long()
            positive = match >= 0
            boxes = torch.from_numpy(golden[f"gt_boxes_{image}"])[match[positive]]
            distances = LTRBCoder(normalize=normalize).encode(boxes, anchors[positive])
            low, high = distances.unflatten(-1, (2, 2)).sort(dim=1).values.unbind(1)
            centerness = (low / high).prod(-1).sqrt()
            assert_close(centerness, torch.from_numpy(expected)[positive])


def test_rejects_options():
    with pytest.raises(TypeError, match="normalize: expected a valid boolean, got 8"):
        LTRBCoder(normalize=8)
