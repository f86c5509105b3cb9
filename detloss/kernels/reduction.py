"""Weighting and reducing: the one place where a loss becomes a sum or a mean."""

import math
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from detloss.options import check_choice

Reduction = Literal["none", "sum", "mean", "image"]
"""What becomes of the losses. "image" sums over all axes but the first, (B, ...) -> (B,)."""
REDUCTIONS = get_args(Reduction)


def check_reduction(reduction: str) -> None:
    """Raises ValueError unless `reduction` is "none", "sum", "mean" or "image"."""
    check_choice("reduction", reduction, REDUCTIONS)


def check_divisor(name: str, value: float) -> None:
    """Raises unless what the caller wants a sum divided by is a finite number above 0.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is 0, negative, infinite or NaN.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name} must be a number or a tensor, got {type(value).__name__}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a finite number > 0, got {value}")


def check_weight(weight: Tensor, shape: torch.Size, *, elementwise: bool) -> None:
    """Raises unless `weight` has one value a row, or one an element where that is allowed.

    Args:
        weight: The user's weight.
        shape: Shape of the predictions, the last axis being the row.
        elementwise: Whether the loss has one value an element.

    Raises:
        TypeError: If `weight` is not a tensor.
        ValueError: If its shape is neither.
    """
    if not isinstance(weight, Tensor):
        raise TypeError(f"weight must be a tensor, got {type(weight).__name__}")
    allowed = [shape[:-1], shape] if elementwise else [shape[:-1]]
    if weight.shape not in allowed:
        expected = " or ".join(str(tuple(s)) for s in allowed)
        raise ValueError(f"weight must have shape {expected}, got {tuple(weight.shape)}")


def only_counted(weight: Tensor | None, counted: Tensor) -> Tensor:
    """`weight`, (...,) or (..., C) or None for ones, with 0 in the rows not `counted` (...,)."""
    if weight is None:
        return counted
    return torch.where(counted if weight.ndim == counted.ndim else counted[..., None], weight, 0)


def reduce(loss: Tensor, count: Tensor | float, reduction: Reduction) -> Tensor:
    """`loss` reduced; a mean is its sum divided by `count`, and the mean of nothing is 0.

    Args:
        loss: (B, ...), a loss a row or element, weighted.
        count: What a mean divides by, a number or 0-d.
        reduction: "none" -> `loss`, "image" -> (B,), "sum" or "mean" -> 0-d.
    """
    if reduction == "none":
        return loss
    if reduction == "image":
        return loss.flatten(1).sum(1) if loss.ndim > 1 else loss
    if loss.ndim > 1:  # rows first: compiled code adds up in order, with an error that grows
        loss = loss.sum(-1)
    total = loss.sum()
    if reduction == "sum":
        return total
    return total / at_least_one(count)


def at_least_one(count: Tensor | float) -> Tensor | float:
    """`count`, but 1 for 0: what a mean divides by."""
    if isinstance(count, Tensor):
        return torch.where(count == 0, 1, count)
    return 1 if count == 0 else count  # a compiler may make a graph a count of `count or 1`
