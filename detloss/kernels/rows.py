"""Box losses, one value a row: coordinates against coordinates, or bins against distances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from detloss.boxes.checking import check_boxes
from detloss.kernels.dispatch import run
from detloss.kernels.formula import Formula
from detloss.kernels.reduction import Reduction, check_reduction, check_weight
from detloss.tensors import check_floating, check_same_shape, wide_type

Space = Literal["boxes", "deltas", "bins"]
"""What the rows of a box loss hold. "boxes": (x1, y1, x2, y2). "deltas": what a coder's `encode`
gives. "bins": logits of bins (4, bins) against distances (4,), measured in bins.
"""


def box_loss(
    formula: Callable[..., Tensor],
    pred: Tensor,
    target: Tensor,
    *rows: Tensor,
    fused: Callable[..., Tensor] | None = None,
    weight: Tensor | None,
    reduction: Reduction,
) -> Tensor:
    """Runs ``formula(pred, target, *rows)``, (..., 4) each -> (...,), checked and reduced.

    Args:
        formula: The loss of each row, plain and differentiable.
        pred: (..., 4), floating point.
        target: Of the same shape.
        *rows: What else the formula takes, (..., K) each.
        fused: ``fused(pred, gradient, target, *rows) -> loss``, (N, 4), (N, 4) or None, (N, 4) and
            (N, K) -> (N,): the closed form, see `Formula`. None for autograd.
        weight: (...,) factor of each row, or None.
        reduction: "none" -> (...,), "sum" or "mean" over rows -> scalar, "image" -> (B,).

    Raises:
        TypeError: If a tensor is not floating point.
        ValueError: If the shapes differ, the last axis is not 4, `weight` has not one value a
            row, or the reduction is unknown.
    """
    check_box_rows(pred, target, weight)
    check_reduction(reduction)
    return run(
        Formula(formula, fused),
        pred,
        *(row.to(wide_type(pred)) for row in (target, *rows)),
        weight=weight,
        count=pred.numel() // 4,
        reduction=reduction,
    )


def check_box_rows(pred: Tensor, target: Tensor, weight: Tensor | None) -> None:
    """Raises unless `pred` and `target` are (..., 4), and `weight` has one value a row.

    Raises:
        TypeError: If a tensor is not floating point.
        ValueError: If a shape does not fit.
    """
    check_boxes("pred", pred)
    check_boxes("target", target)
    check_same_shape("pred", pred, "target", target)
    if weight is not None:
        check_weight(weight, pred.shape, elementwise=False)


def bins_loss(
    formula: Callable[[Tensor, Tensor], Tensor],
    pred: Tensor,
    target: Tensor,
    *,
    fused: Callable[[Tensor, Tensor | None, Tensor], Tensor] | None = None,
    weight: Tensor | None,
    reduction: Reduction,
) -> Tensor:
    """Runs ``formula(pred, target)``, (..., 4, bins) and (..., 4) -> (...,), checked and reduced.

    The engine runs it on rows of 4 x bins values; `formula` and `fused` see them as (4, bins).

    Args:
        formula: The loss of each row, plain and differentiable.
        pred: (..., 4, bins) logits, floating point.
        target: (..., 4) distances, measured in bins.
        fused: ``fused(pred, gradient, target) -> loss``, (N, 4, bins), (N, 4, bins) or None, (N, 4)
            -> (N,): the closed form, see `Formula`. None for autograd.
        weight: (...,) factor of each row, or None.
        reduction: "none" -> (...,), "sum" or "mean" over rows -> scalar, "image" -> (B,).

    Raises:
        TypeError: If a tensor is not floating point.
        ValueError: If the last axes of `pred` are not 4 and at least 2, `target` has not one
            distance a side, `weight` has not one value a row, or the reduction is unknown.
    """
    check_floating("pred", pred)
    if pred.ndim < 2 or pred.shape[-2] != 4 or pred.shape[-1] < 2:
        raise ValueError(
            f"pred must have shape (..., 4, bins) of at least 2 bins, got {tuple(pred.shape)}"
        )
    check_boxes("target", target)
    if target.shape != pred.shape[:-1]:
        raise ValueError(
            f"target must have shape {tuple(pred.shape[:-1])}, one distance a side of pred, "
            f"got {tuple(target.shape)}"
        )
    check_reduction(reduction)
    if weight is not None:
        check_weight(weight, target.shape, elementwise=False)
    sides = pred.shape[-2:]

    def plain(row: Tensor, distances: Tensor) -> Tensor:
        return formula(torch.unflatten(row, -1, sides), distances)

    def in_one_pass(row: Tensor, gradient: Tensor | None, distances: Tensor) -> Tensor:
        assert fused is not None
        out = None if gradient is None else torch.unflatten(gradient, -1, sides)
        return fused(torch.unflatten(row, -1, sides), out, distances)

    return run(
        Formula(plain, None if fused is None else in_one_pass),
        pred.flatten(-2),
        target.to(wide_type(pred)),
        weight=weight,
        count=pred.shape[:-2].numel(),
        reduction=reduction,
    )
