"""A DetectorLoss inside torchvision's RetinaNet.

`use_loss` gives the model another class, its own with another ``compute_loss``, as PyTorch's
``fully_shard`` does. So it stays what it is to ``isinstance``, and a copy, a pickle or an EMA of it
has the criterion that was copied with it.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet

from detloss.classification import ClassificationLoss, prior_bias
from detloss.coders import DeltaCoder
from detloss.detector import DetectorLoss, DetectorOutput
from detloss.parts import needed_predictions

__all__ = ["detection_loss", "prior_bias", "restore_loss", "use_loss"]


def use_loss(model: RetinaNet, criterion: DetectorLoss) -> RetinaNet:
    """Makes ``model(images, targets)`` in training mode return the terms of `criterion`.

    With the config "retinanet" values and gradients are those of torchvision's own loss.
    `restore_loss` is the way back, `detection_loss` the loss in evaluation mode.

    The criterion becomes a part of the model, ``model.criterion``: it is moved, copied, saved and
    switched to evaluation with it, and ``model.criterion = other`` makes the model use another one.
    ``model.loss_output`` is the `DetectorOutput` of the last loss, detached: unweighted terms,
    divisors and matches. It is neither copied nor saved with the model.

    A normalizer with a memory adds its number, ``criterion.*``, to the model's ``state_dict``. A
    checkpoint saved before `use_loss` loads strictly all the same, and such a number is then as it
    was. The other way round, strict loading names the ``criterion.*`` that a model does not have:
    call `use_loss` first, or leave them out.

    In evaluation mode the model can be scripted and exported as before, without the criterion; a
    scripted model raises in training mode.

    Args:
        model: A torchvision RetinaNet, or a subclass of it; changed in place. Its labels are
            columns of its logits, so ``num_classes`` of the model is the number of classes, and
            background has no column. Where it is wrapped, as by DistributedDataParallel, pass it
            before.
        criterion: The loss, on the device of the model and set to its mode. Its coder must mean by
            deltas what the model means by them. It is told the ``level_sizes`` of the model's
            anchor generator.

    Returns:
        `model`, for chaining. In training mode it returns ``criterion(...).terms``: name ->
        weighted 0-d loss, whose sum is the total.

    Raises:
        TypeError: If `model` is not a RetinaNet, or `criterion` no DetectorLoss.
        ValueError: If the model cannot serve the criterion, also when ``model.criterion`` is set
            later: the coder differs from the one that the model decodes with; a part needs what
            the model does not predict, or a number with each call; the classification loss wants
            a background column; there are weights for another number of pyramid levels. Or if the
            model has a ``criterion`` or ``compute_loss`` of its own.

    Example:
        >>> import detloss
        >>> from torchvision.models.detection import retinanet_resnet50_fpn
        >>> model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
        >>> model = use_loss(model, detloss.load_config("retinanet_giou"))
    """
    if not isinstance(model, _WithLoss):
        _kind_of(type(model)).check_criterion(model, criterion)
        taken = [name for name in _ADDED if hasattr(model, name)]
        if taken:
            raise ValueError(
                f"model must have no attribute {taken[0]!r} of its own, use_loss would replace it"
            )
        if "compute_loss" in vars(model):
            raise ValueError(
                "model must have the compute_loss of its class, got another one, "
                f"{model.compute_loss!r}: del model.compute_loss"
            )
        model.__class__ = _with_loss(type(model))  # type: ignore[arg-type]
    model.criterion = criterion
    return model


def restore_loss(model: RetinaNet) -> RetinaNet:
    """Undoes `use_loss`: the model computes torchvision's own loss, and is as it was before.

    Args:
        model: A torchvision RetinaNet; changed in place. One without `use_loss` stays as it is.

    Returns:
        `model`, for chaining.

    Raises:
        TypeError: If `model` is not a RetinaNet, or its class was changed again after `use_loss`.
    """
    if isinstance(model, _WithLoss):
        plain = vars(type(model)).get("plain_class")
        if plain is None:
            raise TypeError(
                f"model must have the class that use_loss gave it, got {type(model).__name__}"
            )
        for name in _ADDED:
            if name in model._modules or name in vars(model):
                delattr(model, name)
        model.__class__ = plain
    else:
        _kind_of(type(model))
    return model


def detection_loss(
    model: RetinaNet, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]]
) -> DetectorOutput:
    """The loss of a model after `use_loss`, in the mode that the model is in.

    In evaluation mode it is the validation loss: batch norm, dropout and a normalizer with a memory
    do not learn from it, no other rank is asked, and images are resized as for a detection. In
    training mode it is the output whose terms ``model(images, targets)`` returns.

    Args:
        model: The model, changed by `use_loss`.
        images: (3, H, W) each, as for the model.
        targets: For each image "boxes" (M, 4) as (x1, y1, x2, y2) in pixels and "labels" (M,), as
            for the model.

    Returns:
        The criterion's output, with a graph unless under ``torch.no_grad()``.

    Raises:
        TypeError: If `use_loss` has not changed the model.

    Example:
        >>> import detloss
        >>> from torchvision.models.detection import retinanet_resnet50_fpn
        >>> model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, min_size=64)
        >>> model = use_loss(model, detloss.load_config("retinanet")).eval()
        >>> target = {"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([7])}
        >>> with torch.no_grad():
        ...     output = detection_loss(model, [torch.rand(3, 64, 64)], [target])
        >>> list(output.terms), model.training
        (['classification', 'box'], False)
    """
    if not isinstance(model, _WithLoss):
        raise TypeError(
            f"model must be one that use_loss has changed, itself and no wrapper of it, got "
            f"{type(model).__name__}"
        )
    training = model.training
    model.training = True  # of the model alone: it asks for the loss, its parts keep their mode
    try:
        terms = dict(model(images, targets))
    finally:
        model.training = training
    output: DetectorOutput = cast(Any, model.loss_output)
    total = sum(terms.values(), start=torch.zeros_like(output.total))
    return replace(output, total=total, terms=terms)


class _WithLoss(nn.Module):
    """What `use_loss` adds to the class of a model; a subclass says how for one kind of model."""

    if TYPE_CHECKING:
        criterion: DetectorLoss
        loss_output: DetectorOutput | None
        plain_class: type
        _level_sizes: Sequence[int] | None
    else:  # without annotations, which TorchScript would take for all of the model's
        loss_output = None
        _level_sizes = None

    @staticmethod
    def check_criterion(model: Any, criterion: DetectorLoss) -> None:
        """Raises TypeError or ValueError where `model` cannot serve `criterion`."""
        raise NotImplementedError

    def terms_of(
        self,
        predictions: Mapping[str, Tensor],
        targets: Sequence[Mapping[str, Tensor]],
        anchors: Sequence[Tensor],
        level_sizes: Sequence[int] | None,
    ) -> dict[str, Tensor]:
        """The terms of the criterion; the rest of its output is kept."""
        output = self.criterion(predictions, targets, anchors=anchors, level_sizes=level_sizes)
        self.loss_output = DetectorOutput(  # older compilers do not follow `replace`
            total=output.total.detach(),
            terms={name: term.detach() for name, term in output.terms.items()},
            unweighted=output.unweighted,
            divisors=output.divisors,
            matches=output.matches,
        )
        terms: dict[str, Tensor] = output.terms
        return terms

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "criterion":
            self.check_criterion(self, value)
        super().__setattr__(name, value)
        if name == "criterion":  # which may come in another mode than that of the model
            value.train(self.training)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {name: value for name, value in state.items() if name != "loss_output"}

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # a pickle names classes, and this one was made by use_loss
        return _without_state, (self.plain_class,), self.__getstate__()


class _RetinaNetWithLoss(_WithLoss):
    """A RetinaNet's names and order of arguments, our terms."""

    @staticmethod
    def check_criterion(model: Any, criterion: DetectorLoss) -> None:
        """See `_WithLoss.check_criterion`."""
        _check_parts(criterion, "a RetinaNet", _READS)
        _check_background(criterion)
        _check_coder(criterion, model.box_coder.weights)
        _check_levels(criterion, len(model.anchor_generator.num_anchors_per_location()))

    @torch.jit.unused
    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
    ) -> dict[str, Tensor]:
        """What the model calls in training mode."""
        predictions = {name: head_outputs[theirs] for name, theirs in _READS.items()}
        return self.terms_of(predictions, targets, anchors, self._level_sizes)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """In training mode it notes the sizes of the levels, which compute_loss is not told."""
        if not self.training:
            return super().__call__(*args, **kwargs)

        def note(generator: Any, inputs: tuple[Any, list[Tensor]], anchors: list[Tensor]) -> None:
            cells = [features.shape[-2] * features.shape[-1] for features in inputs[1]]
            counts = generator.num_anchors_per_location()
            sizes = [cell * count for cell, count in zip(cells, counts, strict=True)]
            if sum(sizes) == len(anchors[0]):  # else the generator is one of another kind
                self._level_sizes = sizes

        handle = cast(nn.Module, self.anchor_generator).register_forward_hook(note)
        try:
            return super().__call__(*args, **kwargs)
        finally:
            handle.remove()
            self._level_sizes = None


_ADDED = ("criterion", "loss_output", "_level_sizes")
_READS = {"class_logits": "cls_logits", "box_regression": "bbox_regression"}
_KINDS: dict[type[nn.Module], type[_WithLoss]] = {RetinaNet: _RetinaNetWithLoss}


def _kind_of(cls: type) -> type[_WithLoss]:
    """What `use_loss` adds to a class of models."""
    for known, kind in _KINDS.items():
        if issubclass(cls, known):
            return kind
    names = ", ".join(known.__name__ for known in _KINDS)
    raise TypeError(f"model must be a torchvision {names}, got {cls.__name__}")


@functools.cache
def _with_loss(plain: Any) -> Any:
    """The class of a model whose class was `plain`, under the same name."""
    names = {name: getattr(plain, name) for name in ("__module__", "__qualname__", "__doc__")}
    ignored = [*getattr(plain, "__jit_ignored_attributes__", ()), *_ADDED]
    own = {"plain_class": plain, "__jit_ignored_attributes__": ignored}
    return type(plain.__name__, (_kind_of(plain), plain), names | own)


def _without_state(plain: type) -> Any:
    """What a copy or a pickle of a model begins with."""
    cls = _with_loss(plain)
    return cls.__new__(cls)


def _check_parts(criterion: DetectorLoss, model: str, predictions: Iterable[str]) -> None:
    """Raises unless a model that gives `predictions`, and no number, can serve `criterion`.

    Args:
        criterion: What is to become the loss of a model.
        model: What the model is, for an error message.
        predictions: What it predicts, in the criterion's names.

    Raises:
        TypeError: If it is no DetectorLoss.
        ValueError: If a part needs another prediction, or a number with each call.
    """
    if not isinstance(criterion, DetectorLoss):
        raise TypeError(
            "criterion must be a DetectorLoss, such as detloss.load_config('retinanet'), got "
            f"{type(criterion).__name__}"
        )
    given = list(predictions)
    needs = {
        f"term {name!r}": sorted(term.needs - {"score"}) for name, term in criterion.terms.items()
    }
    needs[f"matcher {criterion.matcher.type_name!r}"] = needed_predictions([], criterion.matcher)
    for part, needed in needs.items():
        missing = [name for name in needed if name not in given]
        if missing:
            raise ValueError(
                f"criterion must need no prediction but those of {model}, "
                f"{' and '.join(map(repr, given))}; its {part} needs "
                f"{' and '.join(map(repr, missing))}"
            )
    for name, term in criterion.terms.items():
        normalizer = term.normalizer or criterion.normalizer
        if normalizer.needs_number:
            raise ValueError(
                "criterion must have a normalizer that needs no number with each call, which "
                f"{model} cannot pass on, got {name}: {normalizer.type_name}"
            )


def _check_coder(criterion: DetectorLoss, weights: Sequence[float]) -> None:
    """Raises ValueError unless boxes are coded as by a torchvision BoxCoder with `weights`."""
    coder = criterion.coder
    if not isinstance(coder, DeltaCoder) or coder.weights != tuple(weights):
        raise ValueError(
            f"criterion must have the coder that the model decodes with, "
            f"{{type: delta, weights: {list(weights)}}}, got {coder.config()}"
        )


def _check_background(criterion: DetectorLoss) -> None:
    """Raises ValueError for a loss of classes with a column for background."""
    for name, term in criterion.terms.items():
        if isinstance(term.loss, ClassificationLoss) and term.loss.background_columns:
            raise ValueError(
                "criterion must have a classification loss without a background column, got "
                f"{name}: {term.loss.type_name}"
            )


def _check_levels(criterion: DetectorLoss, levels: int) -> None:
    """Raises ValueError for a term with weights of another number of pyramid levels."""
    for name, term in criterion.terms.items():
        if term.level_weights is not None and len(term.level_weights) != levels:
            raise ValueError(
                f"criterion must have {levels} level_weights, one for each pyramid level of the "
                f"model, got {name}: {term.level_weights}"
            )
