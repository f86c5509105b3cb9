"""What the examples take a data set to be: images with their targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Target = dict[str, Tensor]


class ImageSet(Protocol):
    """Images (3, H, W) in [0, 1] with their targets, by index; see `make_target`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, Target]: ...


@dataclass(frozen=True)
class DetectionData:
    """A data set, and what a detector has to know about it.

    Attributes:
        classes: Name of each label.
        train: Images to train on.
        test: Images to evaluate on.
        anchor_sizes: Square roots of the anchors' areas, for each level from stride 8 up.
        aspect_ratios: Height over width of the anchors.
        flip: Whether a mirrored image is still a likely image; a mirrored digit is not.
        notes: How the files were read where that is a choice, and what was left out, a line each.
        changes: What was wrong with the boxes and what was done about it, a line each.
    """

    classes: tuple[str, ...]
    train: ImageSet
    test: ImageSet
    anchor_sizes: tuple[tuple[float, ...], ...]
    aspect_ratios: tuple[float, ...]
    flip: bool
    notes: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()


def make_target(
    boxes: Sequence[Sequence[float]], labels: Sequence[int], ignore: Sequence[bool]
) -> Target:
    """The target of one image; it may hold no box.

    Args:
        boxes: (x1, y1, x2, y2) in pixels of each object.
        labels: Its class, from 0.
        ignore: Whether it counts neither for nor against a detector.
    """
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "ignore": torch.tensor(ignore, dtype=torch.bool),
    }
