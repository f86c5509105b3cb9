"""Matching of SSD: by hand, and against a plain reading."""

import pytest
import torch
from boxgen import random_boxes
from matching import N, said

from detloss.boxes import pairwise_overlap
from detloss.matchers import SSDMatcher
from detloss.tensors import without_host_sync

CONVENTIONS = ["torchvision", "mmdet", "effdet"]


def plainly(anchors, truths, positive, convention):
    overlap = pairwise_overlap(truths, anchors).tolist()
    owner = []
    for anchor in range(len(anchors)):
        best = max(range(len(truths)), key=lambda row: overlap[row][anchor])
        owner.append(best if overlap[best][anchor] >= positive else N)
    rows = list(range(len(truths)))
    for row in reversed(rows) if convention == "effdet" else rows:
        best = max(range(len(anchors)), key=lambda anchor: overlap[row][anchor])
        if overlap[row][best] > 0:
            owner[best] = row
    return owner


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("positive", [0.1, 0.3, 0.5])
def test_it_is_what_a_plain_reading_gives(convention, positive):
    matcher = SSDMatcher(positive=positive, convention=convention)
    for seed in range(6):
        anchors = random_boxes(120, seed=seed, dtype=torch.float32)
        truths = random_boxes(9, seed=seed + 100, dtype=torch.float32)
        truths[3] = truths[7]  # two that have everything in common
        matches = matcher(anchors, truths)
        assert said(matches) == plainly(anchors, truths, positive, convention)
        with without_host_sync():
            assert said(matcher(anchors, truths)) == said(matches)


@pytest.mark.parametrize(("convention", "owner"), [("torchvision", 1), ("mmdet", 1), ("effdet", 0)])
def test_who_gets_an_anchor_that_is_the_best_of_two(convention, owner):
    """The IoU of the first is larger, 1 / 4 against 1 / 8."""
    anchors = torch.tensor([[0.0, 0, 8, 8], [50, 50, 58, 58]])
    truths = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 2]])
    assert said(SSDMatcher(convention=convention)(anchors, truths)) == [owner, N]


def test_of_equal_anchors_the_first_is_the_best():
    anchors = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 8]])
    assert said(SSDMatcher(positive=0.9)(anchors, torch.tensor([[0.0, 0, 4, 4]]))) == [0, N]


def test_a_threshold_of_0_takes_what_overlaps():
    anchors = torch.tensor([[0.0, 0, 8, 8], [4, 0, 12, 8], [8, 0, 16, 8]])
    assert said(SSDMatcher(positive=0.0)(anchors, torch.tensor([[0.0, 0, 8, 8]]))) == [0, 0, N]
