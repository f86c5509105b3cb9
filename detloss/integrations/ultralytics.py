"""A criterion inside a detector of Ultralytics', by what its objects have: nothing is imported.

Their trainer calls ``model.criterion(preds, batch)`` and takes whatever stands there.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from detloss.boxes import convert_boxes, grid_points
from detloss.detector import DetectorLoss
from detloss.integrations.checks import check_background, check_coder, check_levels, check_parts
from detloss.layers import LayeredLoss

__all__ = ["YOLOLoss", "use_loss"]

Model = TypeVar("Model")
READS = ("class_logits", "box_regression")
HEADS = {"one_to_many": "one2many", "one_to_one": "one2one"}
"""What a set of predictions of a `LayeredLoss` is called there."""


def use_loss(
    model: Model,
    criterion: DetectorLoss | LayeredLoss,
    *,
    names: Mapping[str, str] | None = None,
) -> Model:
    """Makes a detector of Ultralytics' train with `criterion`.

    With these configs the loss is their own, as long as their gains (``box``, ``cls``, ``dfl``)
    have the default values; the gains that count are the weights of the config.

    ==========================================  =========================
    model                                       config
    ==========================================  =========================
    YOLOv8, YOLO11, YOLO12 (``reg_max: 16``)    ``yolov8``
    these with ``reg_max: 1``                   ``yolo11_l1``
    YOLOv10                                     ``yolov10_e2e``
    YOLO26 with its two heads                   ``yolo26``
    ==========================================  =========================

    Args:
        model: A ``YOLO``, before its ``train``: each training from then on has this loss, in its
            validation and after a resumed checkpoint too. Or a trainer, before its ``train``: do so
            in the constructor of a class of your own for training on several GPUs, where their
            processes make their own trainers. Or a ``DetectionModel``, for a training loop of your
            own; ``model.criterion = None`` gives it its own loss back.
        criterion: The loss; for a model with two heads a `LayeredLoss` of the sets "one_to_many"
            and "one_to_one", whose schedules go from the first epoch to the last. It is moved to
            the device of the predictions. Checkpoints that their trainer writes do not contain it.
        names: Name of a term -> what its column is called in their tables, which are made for 11
            characters; a term that is not there keeps its name.

    Returns:
        `model`, for chaining.

    Raises:
        TypeError: If `model` has no such head, or `criterion` is no criterion.
        ValueError: If the head cannot serve it: another coder than the head's; a part that needs
            another prediction, or a number with each call; a background column; weights for
            another number of levels; other sets of predictions than the head's. If `names` has
            no term of the criterion.

    Example:
        >>> import detloss
        >>> def train():
        ...     from ultralytics import YOLO
        ...     model = use_loss(YOLO("yolov8n.yaml"), detloss.load_config("yolov8"))
        ...     model.train(data="coco8.yaml", epochs=3)
    """
    add_callback = getattr(model, "add_callback", None)
    if add_callback is None:
        model.criterion = YOLOLoss(model, criterion, names=names)  # type: ignore[attr-defined]
        return model

    def begin(trainer: Any) -> None:
        inner = _unwrapped(trainer.model)
        loss = YOLOLoss(inner, criterion, names=names, epochs=trainer.epochs)
        loss.updates = trainer.start_epoch
        inner.criterion = loss
        if getattr(trainer, "ema", None) is not None:  # which is validated, at the same progress
            trainer.ema.ema.criterion = loss

    inner = getattr(model, "model", None)
    if isinstance(inner, torch.nn.Module):  # a trainer may have only a file's name yet
        YOLOLoss(_unwrapped(inner), criterion, names=names)
    add_callback("on_pretrain_routine_end", begin)
    return model


class YOLOLoss:
    """What Ultralytics calls a criterion: predictions and batch in, loss and numbers to show out.

    Args:
        model: The ``DetectionModel``, for its head's strides and its number of epochs.
        criterion: See `use_loss`.
        names: See `use_loss`.
        epochs: Of the training, over which a schedule goes; those of ``model.args`` by default.

    Attributes:
        updates: How many epochs are over.

    Raises:
        TypeError: See `use_loss`.
        ValueError: See `use_loss`.
    """

    def __init__(
        self,
        model: Any,
        criterion: DetectorLoss | LayeredLoss,
        *,
        names: Mapping[str, str] | None = None,
        epochs: int | None = None,
    ) -> None:
        head = _head_of(model)
        self.strides = tuple(float(stride) for stride in head.stride)
        self.epochs = epochs or getattr(getattr(model, "args", None), "epochs", None)
        self.updates = 0
        self.criterion = criterion
        for each in _criteria(criterion):
            check_parts(each, "a detector of Ultralytics'", READS)
            check_background(each, column=False)
            check_coder(each, _coder_of(head))
            check_levels(each, len(self.strides))
        self.names = {name: name for name in criterion.terms} | dict(names or {})
        if self.names.keys() != criterion.terms.keys():
            raise ValueError(
                f"names must be of the terms {', '.join(criterion.terms)}, got "
                f"{', '.join(names or {})}"
            )

    def __call__(self, preds: Any, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, as their trainer and validator ask for it.

        Args:
            preds: What the model returns: in training mode "boxes" (B, K, A), "scores" (B, C, A)
                and "feats", or such by head; in evaluation mode a pair, of which it is the second.
            batch: "batch_idx" (N,), "cls" (N,) or (N, 1), and "bboxes" (N, 4) as (cx, cy, w, h) in
                fractions of the image.

        Returns:
            The terms (T,), to be added up; and name -> the term to be shown, detached: that of an
            image where its normalizer has ``times_images``, as Ultralytics' loss is shown, and
            before the weight of a schedule.

        Raises:
            ValueError: If the predictions are those of another task or another number of heads.
        """
        training = isinstance(preds, Mapping)
        of_sets = self._by_set(preds if training else preds[1])
        first = next(iter(of_sets.values()))
        features = first["feats"]
        images, device = len(first["scores"]), first["scores"].device
        shapes = tuple(tuple(level.shape[-2:]) for level in features)
        anchors, level_sizes = _points(shapes, self.strides, device)
        size = tuple(round(side * self.strides[0]) for side in shapes[0])
        predictions = {name: _read(of_set) for name, of_set in of_sets.items()}
        call: dict[str, Any] = {}
        if isinstance(self.criterion, LayeredLoss):
            call["progress"] = self.progress
        self.criterion.to(device).train(training)
        output = self.criterion(
            predictions if isinstance(self.criterion, LayeredLoss) else predictions[""],
            _targets(batch, images, size, device),
            anchors=anchors,
            level_sizes=level_sizes,
            image_size=size,
            **call,
        )
        shown = {  # without the factor of a schedule, which would hide how well the head learns
            self.names[name]: loss * self.criterion.terms[name].weight / self._factor(name, images)
            for name, loss in output.unweighted.items()
        }
        return torch.stack(list(output.terms.values())), shown

    def update(self) -> None:
        """An epoch is over; their trainer calls it."""
        self.updates += 1

    @property
    def progress(self) -> float | None:
        """How much of the training is over: 0 in the first epoch, 1 in the last."""
        if self.epochs is None:
            return None
        return min(self.updates / max(self.epochs - 1, 1), 1.0)

    def _by_set(self, preds: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """The predictions of each set of a LayeredLoss; of the set "" of another criterion."""
        heads = {"": ""}
        if isinstance(self.criterion, LayeredLoss):
            heads = {name: HEADS[name] for name in self.criterion.layers}
        found = {name: preds if not head else preds.get(head, {}) for name, head in heads.items()}
        for of_set in found.values():
            if set(of_set) != {"boxes", "scores", "feats"}:
                wanted = " and ".join(filter(None, heads.values())) or "one head"
                raise ValueError(
                    f"preds must be those of a detector with {wanted}, each 'boxes', 'scores' and "
                    f"'feats', got {', '.join(preds)}"
                )
        return found

    def _factor(self, name: str, images: int) -> int:
        """By how much the term of that name is larger than that of an image."""
        if isinstance(self.criterion, LayeredLoss):
            layer, name = name.split("/", 1)
            normalizer = self.criterion.layers[layer].criterion.normalizers()[name]
        else:
            normalizer = self.criterion.normalizers()[name]
        return images if getattr(normalizer, "times_images", False) else 1


def _criteria(criterion: DetectorLoss | LayeredLoss) -> list[DetectorLoss]:
    """The criteria of all heads.

    Raises:
        ValueError: If a set of predictions is none of a head.
    """
    if not isinstance(criterion, LayeredLoss):
        return [criterion]
    if not criterion.layers.keys() <= HEADS.keys():
        raise ValueError(
            f"criterion must have the sets of predictions {' and '.join(HEADS)}, got "
            f"{', '.join(criterion.layers)}"
        )
    return [layer.criterion for layer in criterion.layers.values()]


def _head_of(model: Any) -> Any:
    """The part of a model that predicts."""
    try:
        head = model.model[-1]
        _ = head.stride, head.reg_max
    except (AttributeError, TypeError, IndexError, KeyError):
        raise TypeError(
            "model must be a YOLO, a trainer or a DetectionModel of Ultralytics', whose head has "
            f"stride and reg_max, got {type(model).__name__}"
        ) from None
    return head


def _coder_of(head: Any) -> dict[str, Any]:
    """The options of the coder that a head decodes with."""
    if head.reg_max == 1:
        return {"type": "ltrb", "normalize": True}
    return {"type": "distribution", "bins": head.reg_max}


def _unwrapped(model: Any) -> Any:
    """The model inside of what DistributedDataParallel and `torch.compile` make of one."""
    for name in ("_orig_mod", "module"):
        model = getattr(model, name, model)
    return model


@functools.lru_cache(maxsize=8)
def _points(
    shapes: Sequence[tuple[int, int]], strides: Sequence[float], device: torch.device
) -> tuple[Tensor, list[int]]:
    """Points of a pyramid and the sizes of its levels, kept for the sizes of image in use."""
    return grid_points(shapes, strides, device=device)


def _read(head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The predictions of a head by our names, with the anchors before the columns."""
    names = {"class_logits": "scores", "box_regression": "boxes"}
    return {name: head[theirs].transpose(1, 2) for name, theirs in names.items()}


def _targets(
    batch: Mapping[str, Any], images: int, size: Sequence[int], device: torch.device
) -> list[dict[str, Tensor]]:
    """The objects of each image, boxes in pixels."""
    of_image = batch["batch_idx"].to(device).long().flatten()
    order = of_image.argsort(stable=True)
    boxes = convert_boxes(batch["bboxes"], "cxcywhn", "xyxy", image_size=size).to(device)[order]
    labels = batch["cls"].to(device).long().flatten()[order]
    counts = torch.bincount(of_image, minlength=images).tolist()
    return [
        {"boxes": of_boxes, "labels": of_labels}
        for of_boxes, of_labels in zip(
            torch.split(boxes, counts), torch.split(labels, counts), strict=True
        )
    ]
