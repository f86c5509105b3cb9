"""What every function over boxes asks of its arguments. Shapes and types only, never values."""

from collections.abc import Sequence

import torch
from torch import Tensor

HALF_TYPES = (torch.float16, torch.bfloat16)


def check_boxes(name: str, boxes: Tensor) -> None:
    """Raises unless `boxes` is a floating-point tensor whose last axis is 4.

    Raises:
        TypeError: If `boxes` is not a tensor, or not floating point.
        ValueError: If the last axis is not 4.

    Example:
        >>> check_boxes("pred", torch.zeros(2, 5))
        Traceback (most recent call last):
        ValueError: pred must have shape (..., 4), got (2, 5)
    """
    check_floating(name, boxes)
    if boxes.ndim == 0 or boxes.shape[-1] != 4:
        raise ValueError(f"{name} must have shape (..., 4), got {tuple(boxes.shape)}")


def check_floating(name: str, values: Tensor) -> None:
    """Raises TypeError unless `values` is a floating-point tensor."""
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(values).__name__}")
    if not values.dtype.is_floating_point:
        raise TypeError(f"{name} must be floating point, got {values.dtype}")


def check_same_shape(first_name: str, first: Tensor, second_name: str, second: Tensor) -> None:
    """Raises ValueError where two shapes differ: in training, broadcasting is a bug."""
    if first.shape != second.shape:
        raise ValueError(
            f"{first_name} and {second_name} must have the same shape, "
            f"got {tuple(first.shape)} and {tuple(second.shape)}"
        )


def check_image_size(image_size: Sequence[int]) -> tuple[float, float]:
    """`image_size` as (height, width); raises ValueError unless it is two positive numbers."""
    if len(image_size) != 2 or not all(side > 0 for side in image_size):
        raise ValueError(f"image_size must be two positive (height, width), got {image_size}")
    return float(image_size[0]), float(image_size[1])


def widen(values: Tensor) -> Tensor:
    """`values` in float32 if they are float16 or bfloat16: 300 px squared overflows float16."""
    return values.float() if values.dtype in HALF_TYPES else values


def wide_type(values: Tensor) -> torch.dtype:
    """The dtype of ``widen(values)``."""
    return torch.float32 if values.dtype in HALF_TYPES else values.dtype
