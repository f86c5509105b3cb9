"""Matching needs memory for anchors and for boxes, not for every pair of them."""

import pytest
from fresh_process import measures_memory, printed_by

from detloss.matchers.claims import ClaimMatcher
from detloss.registry import MATCHERS

PEAK = """
import sys
import torch
import detloss
from detloss.bench.cases.matching import anchors_of, objects
from detloss.bench.measure import resident_peak

device = torch.device("cpu")
matcher = detloss.build_part("matcher", {"type": sys.argv[1]})
anchors = anchors_of(1160, device, nine=True)[0][: int(sys.argv[3])]
boxes = objects(int(sys.argv[2]), 1160, device)

def match(anchors, boxes):
    inputs = {
        "gt_labels": torch.zeros(len(boxes), dtype=torch.long),
        "level_sizes": [len(anchors) - len(anchors) // 4, len(anchors) // 4],
        "class_logits": torch.zeros(len(anchors), 1),
        "pred_boxes": anchors,
        "objectness": torch.zeros(len(anchors)),
        "losses": lambda index, positive, first=0: torch.linspace(0, 1, len(anchors)) * positive,
    }
    inputs = {name: inputs[name] for name in matcher.needs}
    return matcher(anchors, boxes, **inputs)

match(anchors[:1000], boxes[:10])
print(resident_peak(lambda: [match(anchors, boxes).positive]))
"""


@measures_memory
@pytest.mark.parametrize("name", MATCHERS.names())
@pytest.mark.parametrize(
    ("count", "anchors", "megabytes"), [(500, 250_000, 40), (5_000, 50_000, 100)]
)
def test_a_crowd_before_250_000_anchors(name, count, anchors, megabytes):
    """All overlaps at once would be 500 MB or 1 GB. The allocator keeps 8 MB more or less."""
    if issubclass(MATCHERS[name], ClaimMatcher):  # keeps who has each anchor, and a block of pairs
        megabytes = max(megabytes, 64)
    assert printed_by(PEAK, name, str(count), str(anchors)) < megabytes * 1e6


HEAT = """
import sys
import torch
from detloss.bench.cases.matching import objects
from detloss.bench.measure import resident_peak
from detloss.boxes import grid_points
from detloss.matchers.images import images_of
from detloss.matchers.tiles import largest_of_each_class
from detloss.qualities import GaussianQuality

cells, _ = grid_points([(256, 256)], [4])

def heat(count):
    boxes = [objects(count, 1024, torch.device("cpu"))]
    images = images_of([cells], boxes, gt_labels=[torch.zeros(count, dtype=torch.long)])
    return largest_of_each_class(
        images.anchors, images.truths, images.labels, 1, GaussianQuality().of_planes
    )

heat(10)
print(resident_peak(lambda: [heat(int(sys.argv[1]))]))
"""


@measures_memory
def test_the_heat_map_of_a_crowd_on_65_536_cells():
    """All pairs at once would be 1.3 GB, several times over."""
    assert printed_by(HEAT, "5000") < 100e6
