"""The bad boxes that every loss on boxes must survive."""

import pytest
import torch
from boxgen import random_boxes

DEGENERATE = {
    "well-formed": [2.0, 3.0, 7.0, 9.0],
    "disjoint from it": [20.0, 30.0, 21.0, 32.0],
    "zero width": [4.0, 3.0, 4.0, 9.0],
    "zero height": [2.0, 5.0, 7.0, 5.0],
    "a point": [4.0, 5.0, 4.0, 5.0],
    "inverted": [7.0, 9.0, 2.0, 3.0],
    "inverted in x only": [7.0, 3.0, 2.0, 9.0],
    "1e-6-sized": [0.0, 0.0, 1e-6, 1e-6],
    "1e5-sized": [-1e5, -1e5, 1e5, 1e5],
}


@pytest.fixture(params=[torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def degenerate_pairs(request):
    """Every box of `DEGENERATE` against every one, itself included."""
    limits = torch.finfo(request.param)
    boxes = torch.tensor(list(DEGENERATE.values()), dtype=torch.float64)
    boxes = boxes.clamp(limits.min, limits.max).to(request.param)
    return boxes.repeat_interleave(len(boxes), 0), boxes.repeat(len(boxes), 1)


@pytest.fixture(
    params=[
        pytest.param([2, 1, 0, 3], id="x inverted"),
        pytest.param([0, 3, 2, 1], id="y inverted"),
        pytest.param([2, 3, 0, 1], id="x and y inverted"),
    ]
)
def inverted(request):
    """Pairs in which the prediction, the target or both are well-formed boxes turned inside out."""
    boxes, others = random_boxes(40, seed=1), random_boxes(40, seed=2)
    flipped = boxes[:, request.param]
    pred = torch.cat([flipped, boxes, flipped, flipped])
    target = torch.cat([boxes, flipped, flipped, others])
    return pred, target
