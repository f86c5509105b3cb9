"""What an accelerator may be asked to do, counted on tensors without values.

A launch costs 5 to 10 microseconds, a pass over the 49 MB of a RetinaNet's logits 15 where memory
moves 3.3 TB/s. A change that spends more than is written here should be measured on a GPU first.
"""

import pytest
import torch

from detloss.bench.cases import COUNTED
from detloss.bench.launches import count

META = torch.device("meta")
BUDGETS = {
    "focal": (24, 32.4),
    "indices-sigmoid_cross_entropy": (12, 12.3),
    "indices-softmax_cross_entropy": (16, 12.3),
}
"""Case -> launches, passes over the logits; forward and backward."""
LAUNCHES = {
    "giou-": 50,
    "ciou-": 70,
    "match-of-": 150,
    "match-batch": 150,
    "assign-task-aligned-": 260,
    "criterion-of-": 350,
    "criterion-yolov8": 510,
}
"""Beginning of cases -> launches, whatever the size or the number of images."""


def counted(name):
    case = COUNTED[name](META, 1.0)
    return count(case.runners["detloss"], case.input_bytes)


@pytest.mark.parametrize("name", BUDGETS)
def test_a_loss_of_logits(name):
    launches, passes = BUDGETS[name]
    found = counted(name)
    assert found.host_syncs == 0
    assert found.launches <= launches
    assert found.passes <= passes


@pytest.mark.parametrize(
    ("name", "launches"),
    [(n, most) for start, most in LAUNCHES.items() for n in COUNTED if n.startswith(start)],
)
def test_boxes_matching_and_a_criterion(name, launches):
    found = counted(name)
    assert found.host_syncs == 0
    assert found.launches <= launches


@pytest.mark.parametrize("kind", ["match", "criterion"])
def test_a_batch_of_more_images_costs_no_more_launches(kind):
    two, *more = (counted(f"{kind}-of-{images}").launches for images in (2, 8, 16))
    assert more == [two, two]
