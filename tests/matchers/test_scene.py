"""What a scene says of pairs of ground truths and anchors."""

from dataclasses import replace

import pytest
import torch
from boxgen import random_boxes
from matching import random_scene
from torch.testing import assert_close

from detloss.tensors import without_host_sync


@pytest.mark.parametrize("kind", ["iou", "ciou"])
def test_overlaps_are_the_same_looked_up_as_computed(kind):
    batch = replace(random_scene(2, 3), pred_boxes=random_boxes(400, seed=2, dtype=torch.float32))
    generator = torch.Generator().manual_seed(0)
    row = torch.randint(6, (50,), generator=generator)
    anchor = torch.randint(200, (50,), generator=generator) + 200 * batch.truths.image[row]
    expected = batch.overlap(row, anchor, kind)
    assert (expected > 0).any()
    assert_close(batch.overlaps(kind)(row, anchor), expected)
    with without_host_sync():
        overlap_of = batch.overlaps(kind)
        assert_close(overlap_of(row, anchor), expected)
        every = overlap_of(batch.row_of_images, batch.anchor_of_images)
    assert every.shape == (2, 3, 200)
    assert_close(every.view(6, 200)[row, anchor % 200], expected)


def test_a_logit_is_that_of_the_truth_s_label():
    """An ignore region may have any label."""
    batch = random_scene(1, 3, anchors=2)
    logits = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    truths = batch.truths._replace(labels=torch.tensor([2, 0, 7]))
    batch = replace(batch, truths=truths, class_logits=logits)
    found = batch.logit(batch.every_row, torch.arange(2))
    assert found.tolist() == [[3, 6], [1, 4], [3, 6]]


def test_an_anchor_of_an_image_has_a_number_of_its_own_where_images_share_them_too():
    for shared in (True, False):
        batch = random_scene(2, 1, anchors=5, shared=shared)
        found = batch.boxes_at(batch.anchor_of_images).view(2, 5, 4)
        assert torch.equal(found, batch.anchors.expand(2, -1, -1))
