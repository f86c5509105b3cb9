"""Images of one size: for a compiler one graph, for an accelerator one launch, whatever is in them.

`pad_targets` is for callers who compile; `padded` is what an accelerator's path is made of.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detloss.boxes.checking import check_boxes
from detloss.tensors import from_host


def pad_targets(
    targets: Sequence[Mapping[str, Tensor]], size: int | None = None
) -> list[dict[str, Any]]:
    """Targets in which every image has the same number of boxes; the loss stays the same.

    The boxes added are ignore regions without area: no anchor is assigned to them, they ignore
    nothing and are counted nowhere. PyTorch's compiler makes a graph of its own for an image with
    no box, and another for one with a single box; of padded targets it makes one for the first
    size and one for all others. Pad outside of what is compiled.

    Args:
        targets: Mappings with "boxes" (M, 4) and optionally "labels" (M,), "ignore" (M,) and
            "weights" (M,). Other entries stay as they are. Not changed in place.
        size: Boxes of each image afterwards, at least 2; None for those of the largest image.

    Raises:
        TypeError: If boxes are not floating point.
        ValueError: If boxes are not (M, 4), or an image has more boxes than `size`.

    Example:
        >>> target = {"boxes": torch.tensor([[0.0, 0, 9, 9]]), "labels": torch.tensor([3])}
        >>> padded = pad_targets([target])[0]
        >>> padded["labels"], padded["ignore"]
        (tensor([3, 0]), tensor([False,  True]))
    """
    for image, target in enumerate(targets):
        check_boxes(f"targets[{image}]['boxes']", target["boxes"])
        if target["boxes"].ndim != 2:
            raise ValueError(
                f"targets[{image}]['boxes'] must have shape (M, 4), "
                f"got {tuple(target['boxes'].shape)}"
            )
    largest = max((len(target["boxes"]) for target in targets), default=0)
    if size is None:
        size = max(largest, 2)
    if size < max(largest, 2):
        raise ValueError(f"size must be at least {max(largest, 2)}, got {size}")
    return [_padded(target, size) for target in targets]


def _padded(target: Mapping[str, Tensor], size: int) -> dict[str, Any]:
    boxes = target["boxes"]
    missing = size - len(boxes)
    never = boxes.new_zeros(len(boxes), dtype=torch.bool)
    padded: dict[str, Any] = dict(target)
    padded["ignore"] = torch.cat([target.get("ignore", never), never.new_ones(missing)])
    padded["boxes"] = torch.cat([boxes, boxes.new_zeros(missing, 4)])
    for key in ("labels", "weights"):
        if key in target:
            padded[key] = torch.cat([target[key], target[key].new_zeros(missing)])
    return padded


def padded(values: Sequence[Tensor], fill: float) -> Tensor:
    """B tensors (M, ...) as one (B, largest M, ...), the smaller ones filled up with `fill`.

    It takes as many launches for many images as for two.

    Example:
        >>> padded([torch.tensor([1, 2]), torch.tensor([3])], 0)
        tensor([[1, 2],
                [3, 0]])
    """
    if len(values) == 1:
        return values[0][None]
    counts = np.array([len(value) for value in values])
    ends = counts.cumsum()
    row = np.arange(counts.max())
    # the row that fills up stands behind all others
    rows = np.where(row < counts[:, None], row + (ends - counts)[:, None], ends[-1])
    filling = values[0].new_full((1, *values[0].shape[1:]), fill)
    return torch.cat([*values, filling])[from_host(rows, filling)]
