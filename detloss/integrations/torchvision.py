"""A DetectorLoss inside torchvision's RetinaNet."""

from collections.abc import Mapping, Sequence
from functools import partial

from torch import Tensor
from torchvision.models.detection import RetinaNet

from detloss.classification import ClassificationLoss, prior_bias
from detloss.coders import DeltaCoder
from detloss.detector import DetectorLoss

__all__ = ["prior_bias", "use_loss"]


def use_loss(model: RetinaNet, criterion: DetectorLoss) -> RetinaNet:
    """Makes ``model(images, targets)`` in training mode return the terms of `criterion`.

    With ``configs/retinanet.yaml`` values and gradients are those of torchvision's own loss.

    Args:
        model: A torchvision RetinaNet; changed in place. Its labels are columns of its logits, so
            ``num_classes`` of the model is the number of classes, and background has no column.
        criterion: The loss. Its coder must mean by deltas what the model means by them.

    Returns:
        `model`, for chaining. In training mode it returns ``criterion(...).terms``: name ->
        weighted 0-d loss, whose sum is the total.

    Raises:
        TypeError: If `model` is not a RetinaNet.
        ValueError: If the criterion's coder differs from the one that the model decodes with, or
            its classification loss wants a background column.

    Example:
        >>> import detloss
        >>> from torchvision.models.detection import retinanet_resnet50_fpn
        >>> model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
        >>> model = use_loss(model, detloss.load_config("configs/retinanet_giou.yaml"))
    """
    if not isinstance(model, RetinaNet):
        raise TypeError(f"model must be a torchvision RetinaNet, got {type(model).__name__}")
    weights = tuple(model.box_coder.weights)
    if not isinstance(criterion.coder, DeltaCoder) or criterion.coder.weights != weights:
        raise ValueError(
            f"criterion must have the coder that the model decodes with, "
            f"{{type: delta, weights: {list(weights)}}}, got {criterion.coder.config()}"
        )
    for name, term in criterion.terms.items():
        if isinstance(term.loss, ClassificationLoss) and term.loss.background_columns:
            raise ValueError(
                "criterion must have a classification loss without a background column, got "
                f"{name}: {term.loss.type_name}"
            )
    model.criterion = criterion  # a part of the model: moved, saved and switched to evaluation
    model.compute_loss = partial(_compute_loss, criterion)
    return model


def _compute_loss(
    criterion: DetectorLoss,
    targets: Sequence[Mapping[str, Tensor]],
    head_outputs: Mapping[str, Tensor],
    anchors: Sequence[Tensor],
) -> dict[str, Tensor]:
    """What torchvision calls: its names and order of arguments, our terms."""
    predictions = {
        "class_logits": head_outputs["cls_logits"],
        "box_regression": head_outputs["bbox_regression"],
    }
    terms: dict[str, Tensor] = criterion(predictions, targets, anchors=anchors).terms
    return terms
