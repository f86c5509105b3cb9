"""What every room asks of a tensor: its dtype and shape, and whether reading it stalls a device.

Checks look at shapes and types, never at values: on an accelerator to read a value is a host sync,
in which the program waits until the device has done all that it was told.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor

HALF_TYPES = (torch.float16, torch.bfloat16)

_NO_HOST_SYNC = ContextVar("without_host_sync", default=False)


def check_floating(name: str, values: Tensor) -> None:
    """Raises TypeError unless `values` is a floating-point tensor.

    A compiler cannot look into the boxes of torchvision, which say their format: while it traces,
    they are refused.
    """
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(values).__name__}")
    if torch.compiler.is_compiling() and type(values) is not Tensor and hasattr(values, "format"):
        raise TypeError(
            f"{name} must be a plain tensor in a compiled function, got "
            f"{type(values).__name__}: write boxes.as_subclass(torch.Tensor) outside of it"
        )
    if not values.dtype.is_floating_point:
        raise TypeError(f"{name} must be floating point, got {values.dtype}")


def check_same_shape(first_name: str, first: Tensor, second_name: str, second: Tensor) -> None:
    """Raises ValueError where two shapes differ: in training, broadcasting is a bug."""
    if first.shape != second.shape:
        raise ValueError(
            f"{first_name} and {second_name} must have the same shape, "
            f"got {tuple(first.shape)} and {tuple(second.shape)}"
        )


def widen(values: Tensor) -> Tensor:
    """`values` in float32 if they are float16 or bfloat16: 300 px squared overflows float16."""
    return values.float() if values.dtype in HALF_TYPES else values


def wide_type(values: Tensor) -> torch.dtype:
    """The dtype of ``widen(values)``."""
    return torch.float32 if values.dtype in HALF_TYPES else values.dtype


def sync_is_free(tensor: Tensor) -> bool:
    """Whether a value of `tensor` can be read without a host sync: in eager mode on a CPU.

    Under a `torch.func` transform it cannot be read at all.
    There a value may decide what is computed. Elsewhere the same result is computed without it.
    """
    if not tensor.is_cpu or torch.compiler.is_compiling() or _NO_HOST_SYNC.get():
        return False
    return not torch._C._are_functorch_transforms_active()


def from_host(
    numbers: "Sequence[float] | np.ndarray[Any, Any]", like: Tensor, dtype: torch.dtype = torch.long
) -> Tensor:
    """`numbers` of the program as a tensor on the device of `like`, without a host sync.

    Example:
        >>> from_host([3, 1], torch.zeros(0))
        tensor([3, 1])
    """
    if torch.compiler.is_compiling():  # sizes that it traces are no values of a tensor
        return torch.stack([like.new_full((), number, dtype=dtype) for number in numbers])
    return torch.as_tensor(numbers, dtype=dtype).to(like.device, non_blocking=True)


def has_float64(device: torch.device) -> bool:
    """Whether the device computes in float64."""
    return device.type != "mps"


@contextmanager
def without_host_sync() -> Iterator[None]:
    """Within, a CPU takes the path of an accelerator: for tests that hold both against each other.

    Example:
        >>> with without_host_sync():
        ...     sync_is_free(torch.zeros(1))
        False
    """
    token = _NO_HOST_SYNC.set(True)
    try:
        yield
    finally:
        _NO_HOST_SYNC.reset(token)
