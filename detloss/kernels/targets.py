"""Classification targets: class indices or a dense tensor, checked and told apart by shape."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detloss.tensors import check_floating, wide_type


def is_index_target(logits: Tensor, target: Tensor) -> bool:
    """Whether `target` holds class indices, (...,) integers, rather than (..., C) values.

    Raises:
        TypeError: If an argument has the wrong type, such as floating-point class indices.
        ValueError: If the shapes do not fit each other.
    """
    check_floating("logits", logits)
    if not isinstance(target, Tensor):
        raise TypeError(f"target must be a tensor, got {type(target).__name__}")
    if logits.ndim == 0:
        raise ValueError("logits must have shape (..., C), got ()")
    if target.shape == logits.shape:
        return False
    if target.shape != logits.shape[:-1]:
        raise ValueError(
            f"target must have shape {tuple(logits.shape[:-1])} (class indices) or "
            f"{tuple(logits.shape)} (a value for each class), got {tuple(target.shape)}"
        )
    if target.dtype.is_floating_point or target.dtype == torch.bool:
        raise TypeError(f"class indices in target must be integers, got {target.dtype}")
    return True


def class_indices(target: Tensor) -> Tensor:
    """Class indices as int64, whatever integers they are.

    In a narrow type an `ignore_index` of -1 is also a class, 255 in uint8, and int8 cannot count
    200 classes.
    """
    return target.long()


def dense_target(logits: Tensor, target: Tensor) -> Tensor:
    """A dense target in the dtype that the loss is computed in; integers and booleans too."""
    return target.to(wide_type(logits))


def checked_quality(logits: Tensor, target: Tensor, quality: Tensor) -> Tensor:
    """`quality` beside class indices, a constant in the dtype that the loss is computed in.

    Raises:
        TypeError: If it is not a floating-point tensor.
        ValueError: If the target is dense, or the shapes differ.
    """
    check_floating("quality", quality)
    if target.shape == logits.shape:
        raise ValueError(
            "quality stands beside class indices; a dense target holds its labels itself, "
            f"got a target of shape {tuple(target.shape)}"
        )
    if quality.shape != target.shape:
        raise ValueError(
            f"quality must have shape {tuple(target.shape)}, one value a row, "
            f"got {tuple(quality.shape)}"
        )
    return quality.detach().to(wide_type(logits))


def per_class_values(name: str, values: Sequence[float] | Tensor, logits: Tensor) -> Tensor:
    """`values` as a (C,) constant beside `logits`; raises ValueError on any other length."""
    values = torch.as_tensor(values, dtype=wide_type(logits), device=logits.device).detach()
    classes = logits.shape[-1]
    if values.shape != (classes,):
        raise ValueError(
            f"{name} must have shape ({classes},), one value per class, got {tuple(values.shape)}"
        )
    return values


def check_label_smoothing(label_smoothing: float) -> None:
    """Raises ValueError unless `label_smoothing` is in [0, 1]."""
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
