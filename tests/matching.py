"""Matches in short, and random scenes, for the tests of matchers."""

import torch
from boxgen import random_boxes
from torch import Tensor

from detloss.matchers import Matches
from detloss.matchers.scene import Scene, Truths

N, X = "negative", "ignored"


def some_losses(target_index: Tensor, positive: Tensor, first: int = 0) -> Tensor:
    """Of each anchor by its number alone, for a matcher that asks for losses."""
    place = torch.arange(positive.shape[1], device=positive.device)
    return torch.where(positive, place * 0.618 % 1 + (place % 5 == 0) * 3, 0)


def said(matches: Matches) -> list[int | str]:
    """The ground truth of each anchor, "negative" or "ignored"."""
    one_of_three = matches.positive.int() + matches.ignored.int() + matches.negative.int()
    assert (one_of_three == 1).all()
    rows = zip(
        matches.target_index.tolist(),
        matches.positive.tolist(),
        matches.ignored.tolist(),
        strict=True,
    )
    return [index if positive else X if ignored else N for index, positive, ignored in rows]


def said_by_original(matched: list[int]) -> list[int | str]:
    """The same of what golden files hold: -1 background, -2 ignored, else the ground truth."""
    return [{-1: N, -2: X}.get(index, index) for index in matched]


def random_scene(
    images: int, most: int, *, anchors: int = 200, shared: bool = True, seed: int = 0
) -> Scene:
    """Images with so many ground truths and anchors each, within 100 pixels of 0."""
    boxes = random_boxes(images * most, seed=seed, dtype=torch.float32)
    image = torch.arange(images).repeat_interleave(most)
    groups = 1 if shared else images
    return Scene(
        images=images,
        anchors=random_boxes(groups * anchors, seed=seed + 1, dtype=torch.float32).view(
            groups, anchors, 4
        ),
        truths=Truths(boxes, image, torch.ones(len(boxes), dtype=torch.bool), None),
    )
