"""What a matcher is given of a batch, and that a batch at once gives the matches of each image."""

import pytest
import torch
from boxgen import random_boxes

from detloss.matchers.images import images_of

BOX = [20.0, 0.0, 40.0, 40.0]
POINT = [0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_boxes_share_the_wider_dtype(dtype):
    anchors, truths = torch.tensor([BOX], dtype=dtype), torch.tensor([BOX, BOX])
    images = images_of([anchors], [truths], gt_ignore=[torch.tensor([True, False])])
    assert images.anchors.dtype == images.truths.dtype == images.boxes.dtype == torch.float32
    assert images.truths.tolist() == [[POINT, BOX]], "an ignore region claims nothing"
    assert images.boxes.tolist() == [[BOX, BOX]]
    assert images_of([anchors], [truths.double()]).anchors.dtype == torch.float64


def test_the_images_of_a_batch_are_filled_up():
    truths = [torch.tensor([BOX]), torch.zeros(0, 4), torch.tensor([BOX, BOX])]
    images = images_of(
        [torch.tensor([BOX])] * 3,
        truths,
        gt_labels=[torch.tensor([5]), torch.tensor([], dtype=torch.long), torch.tensor([6, 7])],
        gt_ignore=[None, None, torch.tensor([False, True])],
    )
    assert images.anchors.shape == (3, 1, 4)
    assert images.boxes.tolist() == [[BOX, POINT], [POINT, POINT], [BOX, BOX]]
    assert images.truths.tolist() == [[BOX, POINT], [POINT, POINT], [BOX, POINT]]
    assert images.is_region.tolist() == [[False, False], [False, False], [False, True]]
    assert images.labels.tolist() == [[5, 0], [0, 0], [6, 7]]


def test_images_may_have_anchors_of_their_own():
    anchors = random_boxes(3, seed=1), random_boxes(3, seed=2)
    images = images_of(anchors, [random_boxes(1), random_boxes(2)])
    assert torch.equal(images.anchors, torch.stack(anchors))


def test_no_flags_no_regions():
    images = images_of([random_boxes(4)], [random_boxes(2)])
    assert images.is_region is None
    assert not images.in_ignore_region(0.0).any()


@pytest.mark.parametrize(
    ("anchors", "boxes", "message"),
    [
        pytest.param(torch.zeros(3, 4), torch.zeros(2, 4), r"\(2,\), got \(3,\)", id="a flag more"),
        pytest.param(torch.zeros(3, 2), torch.zeros(3, 4), r"4\), got \(3, 2\)", id="points"),
    ],
)
def test_every_image_is_checked(anchors, boxes, message):
    right = torch.zeros(3, 4)
    with pytest.raises(ValueError, match=message):
        images_of([right, anchors], [right, boxes], gt_ignore=[None, torch.zeros(3).bool()])
