"""What the code of published detectors divides by, each as a config of a normalizer."""

import pytest
import torch
from term_rows import on_ranks, term_rows
from torch.testing import assert_close

import detloss

# Four anchors an image. Rank 0: three positives on its first image, whose two ground truths overlap
# on the first anchor, and none on its second. Rank 1: one positive and its ground truth.
FIRST = term_rows(
    [[1, 1, 1, 0], [0, 0, 0, 0]],
    counted=[[True, True, True, False], [True, True, False, False]],
    ground_truths=[2, 0],
    pairs=[[2, 1, 1, 0], [0, 0, 0, 0]],
    rows=[[1, 1, 1, 0], [0, 0, 0, 0]],
    target_scores=[[0.5, 0.25, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]],
    row_weights=[[0.5, 0.25, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]],
    columns=80,
    level_sizes=[3, 1],
)
SECOND = term_rows(
    [[1, 0, 0, 0], [0, 0, 0, 0]],
    ground_truths=[1, 1],
    target_scores=[[0.125, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]],
    row_weights=[[0.125, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]],
    columns=80,
    level_sizes=[3, 1],
)
AFTER = {"sync": True, "floor_after_ranks": True}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param({"type": "positives", "per": "image"}, [6, 2], id="torchvision RetinaNet"),
        pytest.param({"type": "positives", "plus": 1}, 4, id="effdet: positives + 1"),
        pytest.param({"type": "positives", "plus": "images"}, 5, id="FoveaBox: positives + B"),
        pytest.param({"type": "positives", "floor": "images"}, 3, id="PAA's class: max(n, B)"),
        pytest.param({"type": "row_weights", "floor": "none"}, 0.75, id="PAA's box: no floor"),
        pytest.param({"type": "positives", "per": "images"}, 4, id="mmdet: sum of max(n_i, 1)"),
        pytest.param({"type": "target_scores"}, 1, id="YOLOv6: the sum only where it is above 1"),
        pytest.param(
            {"type": "target_scores", "times_images": True}, 0.5, id="ultralytics: the loss x B"
        ),
        pytest.param(
            {"type": "target_scores", "floor": "none"}, 0.75, id="YOLOv6 fused: where it is above 0"
        ),
        pytest.param({"type": "anchors"}, 5, id="torchvision RPN: what was sampled"),
        pytest.param({"type": "rows", "per": "level"}, [3, 1], id="YOLOv5's box: rows of a level"),
        pytest.param(
            {"type": "entries", "per": "level", "times_images": True},
            [120, 0.5],
            id="YOLOv5's class: 3 rows x 80 columns of a level, the loss x B",
        ),
        pytest.param({"type": "positives", "per": "images"}, 4, id="YOLOF: anchors, not pairs"),
        pytest.param({"type": "pairs"}, 4, id="D-FINE's boxes: pairs"),
        pytest.param({"type": "constant", "value": 1.0}, 1, id="YOLOv3: a sum"),
    ],
)
def test_on_one_rank(config, expected):
    assert detloss.build_part("normalizer", config)(FIRST).tolist() == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param({"type": "positives", **AFTER}, 2, id="mmdet FCOS: max((3 + 1) / 2, 1)"),
        pytest.param(
            {"type": "positives", "per": "images", **AFTER},
            3,
            id="mmdet ATSS and GFL: (3 + 1 + 1 + 1) / 2",
        ),
        pytest.param({"type": "row_weights", **AFTER}, 1, id="mmdet ATSS's box: max(0.875 / 2, 1)"),
        pytest.param(
            {"type": "row_weights", "floor": 1e-6, **AFTER},
            0.4375,
            id="mmdet FCOS's box: max(0.875 / 2, 1e-6)",
        ),
        pytest.param({"type": "target_scores", **AFTER}, 1, id="PP-YOLOE: max(0.875 / 2, 1)"),
        pytest.param({"type": "ground_truths", **AFTER}, 2, id="DETR: max((2 + 2) / 2, 1)"),
        pytest.param({"type": "target_scores", "sync": True}, 0.5, id="here: max(0.875, 1) / 2"),
    ],
)
def test_on_two_ranks(config, expected):
    normalizer = detloss.build_part("normalizer", config)
    for divisor in on_ranks(normalizer, [FIRST, SECOND]):
        assert_close(divisor, torch.tensor(float(expected)))


def test_detectron2s_average():
    """100 -> 0.9 x 100 + 0.1 x max(n, 1), of each rank for itself."""
    normalizer = detloss.build_part("normalizer", {"type": "moving_average"})
    assert_close(normalizer(FIRST), torch.tensor(90.3))
    assert_close(normalizer(SECOND), torch.tensor(81.37))
