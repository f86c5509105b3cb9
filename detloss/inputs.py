"""What a criterion is given of a batch: predictions, targets and anchors, checked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detloss.boxes.checking import check_boxes
from detloss.matchers.base import check_match_inputs
from detloss.tensors import check_floating, widen

Target = Mapping[str, Tensor]
TARGET_KEYS = ("boxes", "labels", "ignore", "weights", "class_mask")
"""The entries of a target that a criterion reads."""
PROBABILITIES, LOGITS = "class_probabilities", "class_logits"


@dataclass(frozen=True)
class Inputs:
    """A batch of B images with A anchors each; shapes and types are checked, values are not.

    Attributes:
        predictions: Name -> (B, A) or (B, A, K); "class_probabilities" have become "class_logits".
        targets: For each image "boxes" (M, 4) and what else the caller gave.
        anchors: (A, 4) of each image; the same tensor for all where they share it.
        level_sizes: Anchors of each pyramid level, or None where the caller gave none.
    """

    predictions: Mapping[str, Tensor]
    targets: Sequence[Target]
    anchors: Sequence[Tensor]
    level_sizes: Sequence[int] | None = None

    @property
    def images(self) -> int:
        """B."""
        return len(self.targets)

    @property
    def anchors_an_image(self) -> int:
        """A."""
        return len(self.anchors[0])

    @property
    def shared_anchors(self) -> bool:
        """Whether all images have the same anchors."""
        return all(anchors is self.anchors[0] for anchors in self.anchors)

    def levels(self) -> Sequence[int]:
        """The anchors of each pyramid level.

        Raises:
            ValueError: Where the caller gave none.
        """
        if self.level_sizes is None:
            raise ValueError("level_sizes must be given where a part asks for levels, got None")
        return self.level_sizes


def checked_inputs(
    predictions: Mapping[str, Tensor],
    targets: Sequence[Target],
    anchors: Tensor | Sequence[Tensor] | None,
    level_sizes: Sequence[int] | None,
    *,
    needed: Sequence[str],
    labels: bool,
    check: Callable[[Mapping[str, Tensor]], None],
) -> Inputs:
    """The batch, or the first thing that is missing or does not fit.

    Args:
        predictions: What the network says; empty where only anchors are matched.
        targets: One mapping an image.
        anchors: (A, 4), or one such an image.
        level_sizes: Anchors of each pyramid level.
        needed: The predictions that must be there.
        labels: Whether a target must have "labels".
        check: Raises where the predictions do not have the shape that their terms ask for.

    Raises:
        TypeError: If something has the wrong type.
        ValueError: If something is missing or a shape does not fit.
    """
    predictions = _with_logits(predictions)
    _check_types(predictions, needed)
    check(predictions)
    leading = _leading_shape(predictions, needed)
    if len(targets) != (leading[0] if leading else len(targets)):
        raise ValueError(f"targets must be {leading[0]}, one an image, got {len(targets)}")
    for image, target in enumerate(targets):
        _check_target(image, target, labels=labels)
    inputs = Inputs(predictions, targets, _anchors_of(anchors, len(targets), leading), level_sizes)
    if level_sizes is not None and sum(level_sizes) != (inputs.anchors_an_image if targets else 0):
        raise ValueError(
            f"level_sizes must add up to the {inputs.anchors_an_image} anchors of an image, got "
            f"{list(level_sizes)}"
        )
    return inputs


def _with_logits(predictions: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The predictions with logits for probabilities, finite at 0 and 1."""
    if PROBABILITIES not in predictions:
        return predictions
    if LOGITS in predictions:
        raise ValueError(f"predictions must have one of {LOGITS!r} and {PROBABILITIES!r}, got both")
    check_floating(f"predictions[{PROBABILITIES!r}]", predictions[PROBABILITIES])
    p = widen(predictions[PROBABILITIES])
    others = {name: values for name, values in predictions.items() if name != PROBABILITIES}
    tiny = torch.finfo(p.dtype).tiny
    return others | {LOGITS: p.clamp(min=tiny).log() - (1 - p).clamp(min=tiny).log()}


def _check_types(predictions: Mapping[str, Tensor], needed: Sequence[str]) -> None:
    """Raises unless all needed predictions are there, floating point, with axes for B and A."""
    for name in needed:
        if name not in predictions:
            raise ValueError(
                f"predictions must have {' and '.join(map(repr, needed))}, "
                f"got {', '.join(map(repr, predictions)) or 'nothing'}"
            )
        values = predictions[name]
        check_floating(f"predictions[{name!r}]", values)
        if values.ndim < 2:
            raise ValueError(
                f"predictions[{name!r}] must have shape (B, A, ...), got {tuple(values.shape)}"
            )


def _leading_shape(predictions: Mapping[str, Tensor], needed: Sequence[str]) -> tuple[int, ...]:
    """(B, A), which all needed predictions share; () where none is needed."""
    leading: tuple[int, ...] = ()
    for name in needed:
        shape = tuple(predictions[name].shape)
        leading = leading or shape[:2]
        if shape[:2] != leading:
            raise ValueError(
                f"predictions[{name!r}] must have shape {(*leading, *shape[2:])}, got {shape}"
            )
    if leading and not leading[0]:
        raise ValueError("predictions must be of at least one image, got none")
    return leading


def _anchors_of(
    anchors: Tensor | Sequence[Tensor] | None, images: int, leading: tuple[int, ...]
) -> list[Tensor]:
    """The anchors of each image."""
    if anchors is None:
        raise ValueError("anchors must be (A, 4), or one such an image, got None")
    anchors_of = [anchors] * images if isinstance(anchors, Tensor) else list(anchors)
    if len(anchors_of) != images:
        raise ValueError(f"anchors must be one tensor or {images}, got {len(anchors_of)}")
    for image_anchors in anchors_of:
        check_boxes("anchors", image_anchors)
        count = leading[1] if leading else len(anchors_of[0])
        if image_anchors.shape != (count, 4):
            raise ValueError(
                f"anchors must have shape {(count, 4)}, got {tuple(image_anchors.shape)}"
            )
    return anchors_of


def _check_target(image: int, target: Target, *, labels: bool) -> None:
    for key in ("boxes", "labels") if labels else ("boxes",):
        if key not in target:
            raise ValueError(f"targets[{image}] must have {key!r}, got {list(target)}")
    for key in target:
        if key not in TARGET_KEYS:
            _check_no_near_miss(image, key)
        elif not isinstance(target[key], Tensor):
            raise TypeError(
                f"targets[{image}][{key!r}] must be a tensor, got {type(target[key]).__name__}"
            )
    boxes = target["boxes"]
    check_boxes(f"targets[{image}]['boxes']", boxes)
    of_boxes = target.get("labels", boxes[..., 0])
    if boxes.ndim != 2 or of_boxes.shape != boxes.shape[:1]:
        raise ValueError(
            f"targets[{image}] must have boxes (M, 4) and labels (M,), "
            f"got {tuple(boxes.shape)} and {tuple(of_boxes.shape)}"
        )
    if "labels" in target and (of_boxes.is_floating_point() or of_boxes.dtype == torch.bool):
        raise TypeError(f"targets[{image}]['labels'] must be integers, got {of_boxes.dtype}")
    check_match_inputs(boxes, boxes, target.get("ignore"))
    weights = target.get("weights", of_boxes)
    if weights.shape != of_boxes.shape:
        raise ValueError(
            f"targets[{image}]['weights'] must have shape {tuple(of_boxes.shape)}, "
            f"got {tuple(weights.shape)}"
        )


def _check_no_near_miss(image: int, key: str) -> None:
    """Raises ValueError for a key that differs from one that is read by case, number or dashes."""
    for known in TARGET_KEYS:
        if _plain(key) == _plain(known):
            raise ValueError(f"targets[{image}] has {key!r}; did you mean {known!r}?")


def _plain(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "").rstrip("s").removesuffix("e")
