"""What a criterion is given of a batch: predictions, targets and anchors, checked."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detloss.boxes.checking import check_boxes
from detloss.matchers.base import Matches
from detloss.tensors import check_floating, sync_is_free, widen

Target = Mapping[str, Tensor]
ImageSize = Sequence[float] | Tensor
TARGET_KEYS = ("boxes", "labels", "ignore", "weights", "class_mask", "size")
"""The entries of a target that a criterion reads."""
PROBABILITIES, LOGITS = "class_probabilities", "class_logits"


@dataclass(frozen=True)
class Inputs:
    """A batch of B images with A anchors each. Its shapes and types are checked, not its values.

    Attributes:
        predictions: Name -> (B, A) or (B, A, K); "class_logits" are there where the
            caller gave "class_probabilities".
        targets: For each image "boxes" (M, 4) and what else the caller gave.
        anchors: (A, 4) of each image; the same tensor for all where they share it.
        level_sizes: Anchors of each pyramid level, or None where the caller gave none.
        image_size: (B, 2) height and width of each image, or None where the caller gave none.
    """

    predictions: Mapping[str, Tensor]
    targets: Sequence[Target]
    anchors: Sequence[Tensor]
    level_sizes: Sequence[int] | None = None
    image_size: Tensor | None = None

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
    image_size: ImageSize | None = None,
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
        image_size: Height and width of all images, or (B, 2) of each.
        needed: The predictions that must be there.
        labels: Whether a target must have "labels".
        check: Raises where the predictions do not have the shape that their terms ask for.

    Raises:
        TypeError: If something has the wrong type.
        ValueError: If something is missing or a shape does not fit.
    """
    if not isinstance(predictions, Mapping):
        raise TypeError(
            f"predictions must be a mapping from name to tensor, got {type(predictions).__name__}"
        )
    if not isinstance(targets, Sequence):
        raise TypeError(
            f"targets must be a list with one mapping an image, got {type(targets).__name__}"
        )
    predictions = _with_logits(predictions)
    _check_types(predictions, needed)
    check(predictions)
    anchors = _anchors_of(anchors, len(targets))
    inputs = Inputs(predictions, targets, anchors, level_sizes)
    for image, target in enumerate(targets):
        _check_target(image, target, labels=labels)
        for key in TARGET_KEYS:
            if key in target and key != "size":  # two numbers, often on the host
                _check_device(f"targets[{image}][{key!r}]", target[key], inputs.anchors[0])
    _check_leading_axes(inputs, needed)
    if level_sizes is not None and targets:
        _check_level_sizes(level_sizes, inputs.anchors_an_image)
    return Inputs(predictions, targets, anchors, level_sizes, _image_size(image_size, inputs))


def _image_size(given: ImageSize | None, inputs: Inputs) -> Tensor | None:
    """(B, 2) height and width of each image: those of the call, or else of the targets."""
    like = inputs.anchors[0] if inputs.anchors else torch.empty(0)
    if given is None:
        if not inputs.targets or not all("size" in target for target in inputs.targets):
            return None
        first = inputs.targets[0]["size"]
        sizes = torch.cat([target["size"].to(first.device) for target in inputs.targets])
        return widen(sizes.to(like.device, like.dtype, non_blocking=True).view(-1, 2))
    size = torch.as_tensor(given).to(like.device, non_blocking=True)
    if size.shape not in ((2,), (inputs.images, 2)):
        raise ValueError(
            "image_size must be (height, width) of all images or of shape "
            f"({inputs.images}, 2), got shape {tuple(size.shape)}"
        )
    return widen(size.to(like.dtype)).expand(inputs.images, 2)


def check_matches(matches: Sequence[Matches], inputs: Inputs) -> None:
    """Raises unless the matches that a caller gives are one an image, and of its anchors.

    Raises:
        TypeError: If they are no list, or one is no `Matches`.
        ValueError: If there are not as many as images, or one is of another number of anchors.
    """
    if not isinstance(matches, Sequence):
        raise TypeError(
            f"matches must be a list with one Matches an image, got {type(matches).__name__}"
        )
    if len(matches) != inputs.images:
        raise ValueError(f"matches must be {inputs.images}, one an image, got {len(matches)}")
    for image, match in enumerate(matches):
        if not isinstance(match, Matches):
            raise TypeError(f"matches[{image}] must be Matches, got {type(match).__name__}")
        if len(match.positive) != inputs.anchors_an_image:
            raise ValueError(
                f"matches[{image}] must be of the {inputs.anchors_an_image} anchors of an image, "
                f"got {len(match.positive)}"
            )


def _check_level_sizes(level_sizes: Sequence[int], anchors: int) -> None:
    """Raises unless they are integers >= 0 that add up to the anchors of an image."""
    if (
        not isinstance(level_sizes, Sequence)
        or isinstance(level_sizes, str)
        or any(isinstance(size, (bool, float, str, Sequence, Tensor)) for size in level_sizes)
    ):
        raise TypeError(f"level_sizes must be a list of integers, got {level_sizes!r}")
    if any(size < 0 for size in level_sizes) or sum(level_sizes) != anchors:
        raise ValueError(
            f"level_sizes must be >= 0 and add up to the {anchors} anchors of an image, got "
            f"{list(level_sizes)}, together {sum(level_sizes)}; a level has "
            "height x width x anchors of a cell"
        )


def _with_logits(predictions: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The predictions with logits beside probabilities, finite at 0 and 1."""
    if PROBABILITIES not in predictions:
        return predictions
    if LOGITS in predictions:
        raise ValueError(f"predictions must have one of {LOGITS!r} and {PROBABILITIES!r}, got both")
    check_floating(f"predictions[{PROBABILITIES!r}]", predictions[PROBABILITIES])
    p = widen(predictions[PROBABILITIES])
    tiny = torch.finfo(p.dtype).tiny
    return {**predictions, LOGITS: p.clamp(min=tiny).log() - (1 - p).clamp(min=tiny).log()}


def _check_types(predictions: Mapping[str, Tensor], needed: Sequence[str]) -> None:
    """Raises unless all needed predictions are there, floating point, with axes for B and A."""
    for name in needed:
        if name not in predictions:
            raise ValueError(
                f"predictions must have {' and '.join(map(repr, needed))}, "
                f"got {', '.join(map(repr, predictions)) or 'nothing'}"
                f"{_misspelt(name, predictions, needed)}"
            )
        values = predictions[name]
        check_floating(f"predictions[{name!r}]", values)
        if values.ndim < 2:
            raise ValueError(
                f"predictions[{name!r}] must have shape (B, A, ...), got {tuple(values.shape)}"
            )


def _check_leading_axes(inputs: Inputs, needed: Sequence[str]) -> None:
    """Raises unless the needed predictions are (B, A, ...), beside the targets and the anchors.

    Where all of them have another number, it is the targets or the anchors that are blamed.
    """
    if not needed:
        return
    if not inputs.images:
        raise ValueError("targets must be of at least one image, got none")
    expected = (inputs.images, inputs.anchors_an_image)
    shapes = {name: tuple(inputs.predictions[name].shape) for name in needed}
    for axis, beside in enumerate(("targets", "anchors")):
        counts = {shape[axis] for shape in shapes.values()}
        if len(counts) == 1 and expected[axis] not in counts:
            raise ValueError(
                f"{beside} must be {counts.pop()}, like the {('images', 'anchors')[axis]} of "
                f"predictions[{needed[0]!r}] {shapes[needed[0]]}, got {expected[axis]}"
            )
    for name, shape in shapes.items():
        if shape[:2] != expected:
            raise ValueError(
                f"predictions[{name!r}] must have shape ({expected[0]}, {expected[1]}, ...), one "
                f"for each target and anchor, got {shape}"
            )
        _check_device(f"predictions[{name!r}]", inputs.predictions[name], inputs.anchors[0])


def _check_device(name: str, values: Tensor, anchors: Tensor) -> None:
    """Raises ValueError unless `values` are on the device of the anchors."""
    if values.device != anchors.device:
        raise ValueError(
            f"{name} must be on the device of the anchors, {anchors.device}, got {values.device}"
        )


def _anchors_of(anchors: Tensor | Sequence[Tensor] | None, images: int) -> list[Tensor]:
    """The anchors of each image."""
    expected = "anchors must be a tensor (A, 4), or a list of one for each image"
    if anchors is None:
        raise ValueError(f"{expected}, got None")
    if isinstance(anchors, Tensor):
        _check_anchors("anchors", anchors)
        return [anchors] * images
    if not isinstance(anchors, Sequence) or isinstance(anchors, str):
        raise TypeError(f"{expected}, got {type(anchors).__name__}")
    cure = "; the levels of a pyramid become one tensor with torch.cat"
    if len(anchors) != images:
        raise ValueError(f"{expected}, {images} here, got a list of {len(anchors)}{cure}")
    for image, of_image in enumerate(anchors):
        _check_anchors(f"anchors[{image}]", of_image)
        if len(of_image) != len(anchors[0]):
            raise ValueError(
                f"anchors must be equally many in all images, {len(anchors[0])} as in the first, "
                f"got {len(of_image)} in anchors[{image}]{cure}"
            )
        _check_device(f"anchors[{image}]", of_image, anchors[0])
    return list(anchors)


def _check_anchors(name: str, anchors: Tensor) -> None:
    """Raises unless they are boxes (A, 4)."""
    if isinstance(anchors, Tensor) and anchors.ndim != 2:
        raise ValueError(f"{name} must have shape (A, 4), got {tuple(anchors.shape)}")
    check_boxes(name, anchors)


def _check_target(image: int, target: Target, *, labels: bool) -> None:
    """Raises unless a target has what is needed, in the right types and shapes."""
    if not isinstance(target, Mapping):
        raise TypeError(f"targets[{image}] must be a mapping, got {type(target).__name__}")
    for key in target:
        if key not in TARGET_KEYS:
            _check_no_near_miss(image, key)
    for key in ("boxes", "labels") if labels else ("boxes",):
        if key not in target:
            hint = _misspelt(key, target, TARGET_KEYS)
            raise ValueError(f"targets[{image}] must have {key!r}, got {list(target)}{hint}")
    for key in target:
        if key in TARGET_KEYS and not isinstance(target[key], Tensor):
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
    if "size" in target and target["size"].shape != (2,):
        raise ValueError(
            f"targets[{image}]['size'] must be (height, width), of shape (2,), "
            f"got {tuple(target['size'].shape)}"
        )
    if "labels" in target and (of_boxes.is_floating_point() or of_boxes.dtype == torch.bool):
        cure = "" if len(of_boxes) else "; without objects, torch.zeros(0, dtype=torch.long)"
        raise TypeError(f"targets[{image}]['labels'] must be integers, got {of_boxes.dtype}{cure}")
    ignore = target.get("ignore")
    if ignore is not None and (ignore.dtype != torch.bool or ignore.shape != of_boxes.shape):
        error = ValueError if ignore.dtype == torch.bool else TypeError
        raise error(
            f"targets[{image}]['ignore'] must be boolean of shape {tuple(of_boxes.shape)}, "
            f"got {ignore.dtype} of shape {tuple(ignore.shape)}"
        )
    weights = target.get("weights", of_boxes)
    if weights.shape != of_boxes.shape:
        raise ValueError(
            f"targets[{image}]['weights'] must have shape {tuple(of_boxes.shape)}, "
            f"got {tuple(weights.shape)}"
        )
    if "weights" in target and sync_is_free(weights):
        _check_weights(image, weights, ignore)


def _check_weights(image: int, weights: Tensor, ignore: Tensor | None) -> None:
    """Raises ValueError at the first weight that is not finite, or whose loss would be negative."""
    wrong = ~(weights.isfinite() & (weights >= 0))
    if ignore is not None:
        wrong &= ~ignore
    if wrong.any():
        index = int(wrong.nonzero()[0])
        raise ValueError(
            f"targets[{image}]['weights'][{index}] must be finite and at least 0, "
            f"got {weights[index].item():g}"
        )


def check_labels(targets: Sequence[Target], classes: int) -> None:
    """Raises ValueError at the first label outside 0..C-1 that is not one of an ignore region.

    It looks at values, so it is not for an accelerator.
    """
    for image, target in enumerate(targets):
        if "labels" not in target:
            continue
        labels = target["labels"].long()
        wrong = (labels < 0) | (labels >= classes)
        if "ignore" in target:
            wrong &= ~target["ignore"]
        if wrong.any():
            index = int(wrong.nonzero()[0])
            raise ValueError(
                f"targets[{image}]['labels'][{index}] must be in 0..{classes - 1}, "
                f"got {labels[index].item()}"
            )


def _check_no_near_miss(image: int, key: object) -> None:
    """Raises ValueError for a key that differs from one that is read by case, number or dashes."""
    for read in TARGET_KEYS:
        if _plain(key) == _plain(read):
            raise ValueError(f"targets[{image}] has {key!r}; did you mean {read!r}?")


def _plain(key: object) -> str:
    """`key` without case, dashes and the ending of a plural."""
    text = str(key).lower().replace("_", "").replace("-", "")
    return text.rstrip("s").removesuffix("e")


def _misspelt(missing: str, given: Iterable[object], known: Sequence[str]) -> str:
    """A hint at the name in `given` that may stand for the missing one, or nothing."""
    others = [str(name) for name in given if name not in known]
    near = difflib.get_close_matches(missing, others, n=1)
    return f"; did you mean {missing!r} where it says {near[0]!r}?" if near else ""
