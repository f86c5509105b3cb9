"""Losses in the configs of MMDetection: importing this module files them in MMEngine's registry.

In a config of MMDetection's::

    custom_imports = dict(imports=["detloss.integrations.mmdet"])
    model = dict(bbox_head=dict(
        reg_decoded_bbox=True,
        loss_cls=dict(type="detloss.SigmoidFocal", use_sigmoid=True),
        loss_bbox=dict(type="detloss.CIoU", loss_weight=2.0)))

A loss is called by the name of its class without "Loss". Neither mmdet nor MMEngine is imported by
anything else of detloss, and without MMEngine this module files nothing.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from detloss.kernels.reduction import at_least_one
from detloss.registry import CLASSIFICATION, REGRESSION

__all__ = ["MMDetLoss", "file_losses"]

Reduction = Literal["none", "mean", "sum"]


class MMDetLoss(nn.Module):
    """A loss with the arguments that a head of MMDetection's gives; a subclass has the loss.

    Args:
        use_sigmoid: Whether a class has a logit of its own. Heads read it in the config, and have a
            column for background without it, so it must be true for a loss of yes-or-no answers.
        loss_weight: Factor of the loss.
        reduction: "mean", "sum" or "none", one number a row.
        options: Those of the loss.

    Raises:
        TypeError: If the loss has no such option.
        ValueError: If `use_sigmoid` does not fit the loss, or an option is wrong.
    """

    loss_class: ClassVar[type[Any]]

    def __init__(
        self,
        *,
        use_sigmoid: bool = False,
        loss_weight: float = 1.0,
        reduction: Reduction = "mean",
        **options: Any,
    ) -> None:
        super().__init__()
        self.loss = self.loss_class(**options, reduction="none")
        self.loss_weight = loss_weight
        self.reduction = reduction
        self.use_sigmoid = use_sigmoid
        of_classes = not hasattr(self.loss, "space")
        if of_classes and use_sigmoid == bool(self.loss.background_columns):
            raise ValueError(
                f"use_sigmoid must be {not use_sigmoid} for {self.loss.type_name}, since a head "
                f"has {'no' if use_sigmoid else 'a'} column for background then, got {use_sigmoid}"
            )

    def forward(
        self,
        pred: Tensor,
        target: Tensor | tuple[Tensor, Tensor],
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: Reduction | None = None,
    ) -> Tensor:
        """The loss of what a head predicts.

        Args:
            pred: Logits (n, C), or (n,) of one answer; boxes or deltas (n, 4); or logits of
                distances (4 n, bins).
            target: Class indices (n,), C for background, or (labels, qualities); values of the
                shape of `pred`; or distances (4 n,).
            weight: (n,), or with a column for each of `pred`, of which the mean counts for boxes.
            avg_factor: What the sum is divided by, with reduction "mean"; 0 counts as 1.
            reduction_override: In place of `reduction`.

        Returns:
            0-d, or (n,) without reduction. A mean without `avg_factor` is over elements for losses
            of one logit or coordinate each, over rows for the others, as in MMDetection.

        Raises:
            ValueError: If there is an `avg_factor` with reduction "sum", or a shape does not fit.
        """
        reduction = reduction_override or self.reduction
        if reduction == "sum" and avg_factor is not None:
            raise ValueError(f"avg_factor must be None with reduction 'sum', got {avg_factor}")
        rows = self._rows(pred, target, weight) * self.loss_weight
        if reduction == "none":
            return rows
        if reduction == "mean" and avg_factor is None:
            avg_factor = pred.numel() if self._of_elements else len(pred)
        return rows.sum() if avg_factor is None else rows.sum() / at_least_one(avg_factor)

    @property
    def _of_elements(self) -> bool:
        """Whether a row's loss is a sum over its columns."""
        if hasattr(self.loss, "space"):
            return bool(self.loss.space == "deltas")
        return not self.loss.background_columns

    def _rows(
        self, pred: Tensor, target: Tensor | tuple[Tensor, Tensor], weight: Tensor | None
    ) -> Tensor:
        """The loss of each row, (n,), with its weight."""
        named: dict[str, Tensor] = {}
        if isinstance(target, tuple):
            target, named["quality"] = target
        factor = 1
        space = getattr(self.loss, "space", None)
        if space == "bins":  # their rows are sides, ours boxes with the mean of four sides
            pred, target, factor = pred.reshape(-1, 4, pred.shape[-1]), target.reshape(-1, 4), 4
            weight = None if weight is None else weight.reshape(-1, 4)
        elif space is None and pred.ndim == 1:
            pred, target = pred[:, None], target[:, None]
        if weight is not None and weight.ndim == 2 and (space or weight.shape[1] == 1):
            weight = weight.mean(-1)
        rows: Tensor = self.loss(pred, target, weight=weight, **named)
        return rows * factor


def file_losses(models: Any) -> list[str]:
    """Files each registered loss of detloss below a registry of MMEngine's, in the scope "detloss".

    Args:
        models: The registry that finds them by "detloss.<name>", as do all below it.

    Returns:
        Their names.
    """
    below = type(models)("model", parent=models, scope="detloss")
    names = []
    for registry in (CLASSIFICATION, REGRESSION):
        for type_name in registry.names():
            loss_class = registry[type_name]
            name = loss_class.__name__.removesuffix("Loss")
            own = {"loss_class": loss_class, "__doc__": loss_class.__doc__, "__module__": __name__}
            below.register_module(name=name, module=type(name, (MMDetLoss,), own))
            names.append(name)
    return names


if find_spec("mmengine") is not None:
    file_losses(import_module("mmengine.registry").MODELS)
