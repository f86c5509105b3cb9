"""What every function over boxes asks of its arguments. Shapes and types only, never values."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detloss.tensors import check_floating


def check_boxes(name: str, boxes: Tensor, box_format: str = "xyxy") -> None:
    """Raises unless `boxes` is a floating-point tensor whose last axis is 4.

    Boxes that say which format they have, as torchvision's `BoundingBoxes` do, have to be in
    `box_format`.

    Raises:
        TypeError: If `boxes` is not a tensor, or not floating point.
        ValueError: If the last axis is not 4, or the boxes say that they are in another format.

    Example:
        >>> check_boxes("pred", torch.zeros(2, 5))
        Traceback (most recent call last):
        ValueError: pred must have shape (..., 4), got (2, 5)
    """
    check_floating(name, boxes)
    if boxes.ndim == 0 or boxes.shape[-1] != 4:
        cure = "" if boxes.shape != (0,) else "; a list that may be empty needs .reshape(-1, 4)"
        raise ValueError(f"{name} must have shape (..., 4), got {tuple(boxes.shape)}{cure}")
    if type(boxes) is not torch.Tensor and hasattr(boxes, "format"):
        found = str(getattr(boxes.format, "name", boxes.format)).lower()
        if found != box_format:
            raise ValueError(
                f"{name} must be in format {box_format}, got {found}: "
                f"write convert_boxes({name}, {found!r}, {box_format!r})"
            )


def check_image_size(image_size: Sequence[float]) -> tuple[float, float]:
    """`image_size` as (height, width); raises ValueError unless it is two positive numbers."""
    if len(image_size) != 2 or not all(side > 0 for side in image_size):
        raise ValueError(f"image_size must be two positive (height, width), got {image_size}")
    return float(image_size[0]), float(image_size[1])
