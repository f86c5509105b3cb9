"""Matching needs memory for anchors and for boxes, not for every pair of them."""

import pytest
from fresh_process import measures_memory, printed_by

PEAK = """
import sys
import torch
from detloss.bench.cases import objects, retinanet_anchors
from detloss.bench.measure import resident_peak
from detloss.matchers import MaxIoUMatcher

device, matcher = torch.device("cpu"), MaxIoUMatcher()
anchors = retinanet_anchors(1160, device)[:250_000]
boxes = objects(int(sys.argv[1]), 1160, device)
matcher(anchors[:1000], boxes[:10])
print(resident_peak(lambda: [matcher(anchors, boxes).positive]))
"""


@measures_memory
@pytest.mark.parametrize(("count", "megabytes"), [(500, 32), (5_000, 200)])
def test_a_crowd_before_250_000_anchors(count, megabytes):
    """All overlaps of 5,000 boxes at once would be 5 GB."""
    assert printed_by(PEAK, str(count)) < megabytes * 1e6
