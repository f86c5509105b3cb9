"""Classification targets: class indices or a dense tensor, checked and told apart by shape."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from detloss.tensors import check_floating, sync_is_free, wide_type


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


def class_indices(target: Tensor, last: int, ignore_index: int, weight: Tensor | None) -> Tensor:
    """Class indices as int64, whatever integers they are, looked at where that is free.

    In a narrow type an `ignore_index` of -1 is also a class, 255 in uint8, and int8 cannot count
    200 classes.

    Args:
        target: Class indices (...,).
        last: The largest one that means something.
        ignore_index: The one of rows to leave out.
        weight: (...,) or (..., C); where it is 0, a row may hold anything.

    Raises:
        ValueError: If a class index is neither in 0..last nor `ignore_index`. It is not looked for
            on an accelerator, and when compiled.
    """
    target = target.long()
    if not sync_is_free(target) or target.numel() == 0:
        return target
    least, largest = (value.item() for value in target.aminmax())
    if largest <= last and (least >= 0 or least == ignore_index == -1):
        return target
    bad = ((target < 0) | (target > last)) & (target != ignore_index)
    if weight is not None:
        silent = weight == 0 if weight.ndim == target.ndim else (weight == 0).all(-1)
        target, bad = target.masked_fill(bad & silent, 0), bad & ~silent
    if bad.any():
        raise ValueError(
            f"class indices in target must be in 0..{last}, or ignore_index, {ignore_index}, for "
            f"rows to leave out, got {target[bad][0].item()}"
        )
    return target


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


def per_class_values(
    name: str,
    values: Sequence[float] | Tensor,
    logits: Tensor,
    *,
    highest: float = math.inf,
    positive: bool = False,
) -> Tensor:
    """`values` as a (C,) constant beside `logits`.

    Raises:
        ValueError: If there are more or fewer, or one is out of range; see `check_range`.
    """
    check_range(name, values, highest, positive=positive)
    values = torch.as_tensor(values, dtype=wide_type(logits), device=logits.device).detach()
    classes = logits.shape[-1]
    if values.shape != (classes,):
        raise ValueError(
            f"{name} must have shape ({classes},), one value per class, got {tuple(values.shape)}"
        )
    return values


def check_range(
    name: str, values: Sequence[float] | Tensor, highest: float, *, positive: bool = False
) -> None:
    """Raises unless all values are finite numbers in [0, highest], without 0 if `positive`.

    A tensor is looked at where that is free, see `sync_is_free`.

    Raises:
        TypeError: If they are booleans, or text.
        ValueError: If one is out of range.
    """

    def fits(value: float) -> bool:  # not so for a nan
        return (value > 0 if positive else value >= 0) and value <= highest and value < math.inf

    if isinstance(values, Tensor):
        if values.dtype == torch.bool:
            raise TypeError(f"{name} must be numbers, got {values.dtype}")
        if values.numel() == 0 or not sync_is_free(values):
            return
        least, largest = (value.item() for value in values.aminmax())
        if fits(least) and fits(largest):
            return
        values = values.flatten().tolist()
    for value in values:
        if isinstance(value, (bool, str)):
            raise TypeError(f"{name} must be numbers, got {value!r}")
        if not fits(value):
            expected = f"finite and {'greater than' if positive else 'at least'} 0"
            expected = expected if highest == math.inf else f"in [0, {highest:g}]"
            raise ValueError(f"{name} must be {expected}, got {value}")
