"""Box losses: one row of coordinates against another, one value a row."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from detloss.boxes.checking import check_boxes
from detloss.kernels.engine import Formula, run
from detloss.kernels.reduction import Reduction, check_reduction, check_weight
from detloss.tensors import check_same_shape, wide_type

Space = Literal["boxes", "deltas", "bins"]
"""What the rows of a box loss hold. "boxes": (x1, y1, x2, y2). "deltas": what a coder's `encode`
gives. "bins": logits of bins (4, bins) against distances (4,), measured in bins.
"""


def box_loss(
    formula: Callable[[Tensor, Tensor], Tensor],
    pred: Tensor,
    target: Tensor,
    *,
    fused: Callable[[Tensor, Tensor | None, Tensor], Tensor] | None = None,
    weight: Tensor | None,
    reduction: Reduction,
) -> Tensor:
    """Runs ``formula(pred, target)``, (..., 4) and (..., 4) -> (...,), checked and reduced.

    Raises:
        TypeError: If a tensor is not floating point.
        ValueError: If the shapes differ, the last axis is not 4, `weight` has not one value a
            row, or the reduction is unknown.
    """
    check_boxes("pred", pred)
    check_boxes("target", target)
    check_same_shape("pred", pred, "target", target)
    check_reduction(reduction)
    if weight is not None:
        check_weight(weight, pred.shape, elementwise=False)
    return run(
        Formula(formula, fused),
        pred,
        target.to(wide_type(pred)),
        weight=weight,
        count=pred.numel() // 4,
        reduction=reduction,
    )
