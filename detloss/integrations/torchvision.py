"""A DetectorLoss inside a detector of torchvision's.

RetinaNet, FCOS, SSD and SSDlite, and the region proposal network of Faster R-CNN and Mask R-CNN.

`use_loss` gives the model another class, its own with another ``compute_loss``, as PyTorch's
``fully_shard`` does. So it stays what it is to ``isinstance``, and a copy, a pickle or an EMA of it
has the criterion that was copied with it.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.ssd import SSD

from detloss.classification import prior_bias
from detloss.detector import DetectorLoss, DetectorOutput
from detloss.integrations.checks import check_background, check_coder, check_levels, check_parts
from detloss.terms import BoxTerm

__all__ = ["detection_loss", "prior_bias", "restore_loss", "use_loss"]

Model = TypeVar("Model", bound=nn.Module)


def use_loss(model: Model, criterion: DetectorLoss) -> Model:
    """Makes ``model(images, targets)`` in training mode return the terms of `criterion`.

    With these configs values and gradients are those of torchvision's own loss:

    ===============================  =============  ===========================================
    model                            config         what a criterion may read
    ===============================  =============  ===========================================
    RetinaNet                        ``retinanet``  "class_logits", "box_regression"
    FCOS                             ``fcos``       these and "centerness"
    SSD, SSDlite                     ``ssd``        as RetinaNet, with a column for background
    the ``rpn`` of a Faster R-CNN    ``rpn``        "objectness", "box_regression"
    ===============================  =============  ===========================================

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
        model: One of the table's, or of a subclass; changed in place. Where it is wrapped, as by
            DistributedDataParallel, pass it before. Labels are those that torchvision asks for:
            from 0 on for RetinaNet and FCOS; from 1 on for SSD, whose class 0 is background, and
            which the criterion gets with the background column last and labels from 0 on. A
            Faster R-CNN or Mask R-CNN stands for its ``rpn``, which then has the criterion.
        criterion: The loss, on the device of the model and set to its mode. Its coder must mean by
            deltas what the model means by them. It is told the ``level_sizes`` of the model's
            anchor generator, and the size of each image as the network sees it.

    Returns:
        `model`, for chaining. In training mode it returns ``criterion(...).terms``: name ->
        weighted 0-d loss, whose sum is the total. A region proposal network keeps torchvision's
        two names: "loss_rpn_box_reg" is the sum of the box terms, "loss_objectness" of the others.

    Raises:
        TypeError: If `model` is of another kind, or `criterion` no DetectorLoss.
        ValueError: If the model cannot serve the criterion, also when ``model.criterion`` is set
            later: the coder differs from the one that the model decodes with; a part needs what
            the model does not predict, or a number with each call; the classification loss wants
            a background column that the model does not have, or has none for the one that it has;
            there are weights for another number of pyramid levels. Or if the model has a
            ``criterion`` or ``compute_loss`` of its own.

    Example:
        >>> import detloss
        >>> from torchvision.models.detection import retinanet_resnet50_fpn
        >>> model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
        >>> model = use_loss(model, detloss.load_config("retinanet_giou"))
    """
    part = _dense_part(model)
    if not isinstance(part, _WithLoss):
        _kind_of(type(part)).check_criterion(part, criterion)
        taken = [name for name in _ADDED if hasattr(part, name)]
        if taken:
            raise ValueError(
                f"model must have no attribute {taken[0]!r} of its own, use_loss would replace it"
            )
        if "compute_loss" in vars(part):
            raise ValueError(
                "model must have the compute_loss of its class, got another one, "
                f"{part.compute_loss!r}: del model.compute_loss"
            )
        part.__class__ = _with_loss(type(part))  # type: ignore[arg-type]
    part.criterion = criterion
    return model


def restore_loss(model: Model) -> Model:
    """Undoes `use_loss`: the model computes torchvision's own loss, and is as it was before.

    Args:
        model: What `use_loss` takes; changed in place. One without `use_loss` stays as it is.

    Returns:
        `model`, for chaining.

    Raises:
        TypeError: If `model` is of another kind, or its class was changed again after `use_loss`.
    """
    part = _dense_part(model)
    if isinstance(part, _WithLoss):
        plain = vars(type(part)).get("plain_class")
        if plain is None:
            raise TypeError(
                f"model must have the class that use_loss gave it, got {type(part).__name__}"
            )
        for name in _ADDED:
            if name in part._modules or name in vars(part):
                delattr(part, name)
        part.__class__ = plain
    else:
        _kind_of(type(part))
    return model


def detection_loss(
    model: nn.Module, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]]
) -> DetectorOutput:
    """The loss of a model after `use_loss`, in the mode that the model is in.

    In evaluation mode it is the validation loss: batch norm, dropout and a normalizer with a memory
    do not learn from it, no other rank is asked, and images are resized as for a detection. In
    training mode it is the output whose terms ``model(images, targets)`` returns.

    Args:
        model: The model, changed by `use_loss`; of a region proposal network, the model around it.
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
    part = _dense_part(model)
    if not isinstance(part, _WithLoss):
        raise TypeError(
            f"model must be one that use_loss has changed, itself and no wrapper of it, got "
            f"{type(model).__name__}"
        )
    training = part.training
    part.training = True  # of this module alone: it asks for the loss, its parts keep their mode
    outputs: list[DetectorOutput] = []
    part._outputs = outputs
    try:
        model(images, targets)
    finally:
        part.training = training
        del part._outputs
    return outputs[0]


if TYPE_CHECKING:

    class _Attributes(nn.Module):
        """What a model has after `use_loss`."""

        kind: ClassVar[str]
        plain_class: ClassVar[type]
        criterion: DetectorLoss
        loss_output: DetectorOutput | None
        _level_sizes: Sequence[int] | None
        _image_size: Tensor | None
        _outputs: list[DetectorOutput] | None
else:
    _Attributes = nn.Module  # TorchScript would take our annotations for all of the model's


class _WithLoss(_Attributes):
    """What `use_loss` adds to the class of a model; a subclass says how for one kind of model."""

    background = False

    @staticmethod
    def reads() -> dict[str, str]:
        """What the model calls each prediction; no attribute, which older compilers cannot read."""
        return {"class_logits": "cls_logits", "box_regression": "bbox_regression"}

    @staticmethod
    def coder_of(model: Any) -> dict[str, Any]:
        """The options of the coder that the model decodes with."""
        return {"type": "delta", "weights": list(model.box_coder.weights)}

    @classmethod
    def check_criterion(cls, model: Any, criterion: DetectorLoss) -> None:
        """Raises TypeError or ValueError where `model` cannot serve `criterion`."""
        check_parts(criterion, cls.kind, cls.reads())
        check_background(criterion, column=cls.background)
        check_coder(criterion, cls.coder_of(model))
        check_levels(criterion, len(model.anchor_generator.num_anchors_per_location()))

    def terms_of(
        self,
        head_outputs: Mapping[str, Tensor],
        targets: Sequence[Mapping[str, Tensor]],
        anchors: Sequence[Tensor],
        level_sizes: Sequence[int] | None = None,
    ) -> dict[str, Tensor]:
        """The terms of the criterion; the rest of its output is kept."""
        output = self.criterion(
            {name: head_outputs[theirs] for name, theirs in self.reads().items()},
            targets,
            anchors=anchors,
            level_sizes=level_sizes or self._level_sizes,
            image_size=self._image_size,
        )
        if self._outputs is not None:
            self._outputs.append(output)
        self.loss_output = DetectorOutput(  # older compilers do not follow `replace`
            total=output.total.detach(),
            terms={name: term.detach() for name, term in output.terms.items()},
            unweighted=output.unweighted,
            divisors=output.divisors,
            matches=output.matches,
        )
        return dict(output.terms)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """In training mode it notes the sizes of levels and images: compute_loss is not told."""
        if not self.training:
            return super().__call__(*args, **kwargs)

        def note(generator: Any, inputs: tuple[Any, list[Tensor]], anchors: list[Tensor]) -> None:
            self._image_size = torch.tensor(inputs[0].image_sizes)
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
            self._level_sizes = self._image_size = None

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

    kind = "a RetinaNet"

    @torch.jit.unused
    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
    ) -> dict[str, Tensor]:
        """What the model calls in training mode."""
        return self.terms_of(head_outputs, targets, anchors)


class _FCOSWithLoss(_WithLoss):
    """An FCOS's names and order of arguments, our terms."""

    kind = "an FCOS"

    @staticmethod
    def reads() -> dict[str, str]:
        """See `_WithLoss.reads`."""
        return {**_WithLoss.reads(), "centerness": "bbox_ctrness"}

    @staticmethod
    def coder_of(model: Any) -> dict[str, Any]:
        """See `_WithLoss.coder_of`."""
        return {"type": "ltrb", "normalize": model.box_coder.normalize_by_size}

    @torch.jit.unused
    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        num_anchors_per_level: list[int],
    ) -> dict[str, Tensor]:
        """What the model calls in training mode."""
        return self.terms_of(head_outputs, targets, anchors, num_anchors_per_level)


class _SSDWithLoss(_WithLoss):
    """An SSD's names and order of arguments, our terms.

    The class 0 of an SSD is background, in its logits and labels; ours has the last column and no
    label.
    """

    kind = "an SSD"
    background = True

    @torch.jit.unused
    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        """What the model calls in training mode; the criterion matches by itself."""
        logits = head_outputs["cls_logits"].roll(-1, dims=-1)
        from_0 = [
            {**target, "labels": target["labels"] - 1} if "labels" in target else target
            for target in targets
        ]
        return self.terms_of({**head_outputs, "cls_logits": logits}, from_0, anchors)


class _ProposalsWithLoss(_WithLoss):
    """The calls of a region proposal network, our loss."""

    kind = "a RegionProposalNetwork"

    @staticmethod
    def reads() -> dict[str, str]:
        """See `_WithLoss.reads`."""
        return {"objectness": "objectness", "box_regression": "box_regression"}

    @torch.jit.unused
    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Hands anchors and targets on to `compute_loss`, in the place of labels."""
        return cast(Any, list(zip(anchors, targets, strict=True))), anchors

    @torch.jit.unused
    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """What the network calls in training mode: the sum of other terms, that of box terms."""
        anchors, targets = zip(*cast(Any, labels), strict=True)
        flat = {"objectness": objectness, "box_regression": pred_bbox_deltas}
        outputs = {
            name: values.view(len(anchors), -1, values.shape[-1]) for name, values in flat.items()
        }
        terms = self.terms_of(outputs, targets, anchors)
        zero = objectness.new_zeros((), dtype=torch.float32)
        of_boxes = [name for name in terms if isinstance(self.criterion.terms[name], BoxTerm)]
        others = [value for name, value in terms.items() if name not in of_boxes]
        return sum(others, zero), sum((terms[name] for name in of_boxes), zero)


_NOTED = ("loss_output", "_level_sizes", "_image_size", "_outputs")
_ADDED = ("criterion", *_NOTED)
_KINDS: dict[type[nn.Module], type[_WithLoss]] = {
    RetinaNet: _RetinaNetWithLoss,
    FCOS: _FCOSWithLoss,
    SSD: _SSDWithLoss,
    RegionProposalNetwork: _ProposalsWithLoss,
}


def _dense_part(model: nn.Module) -> Any:
    """The part of a model that predicts at every anchor: the model, or its proposal network."""
    return model.rpn if isinstance(model, GeneralizedRCNN) else model


def _kind_of(cls: type) -> type[_WithLoss]:
    """What `use_loss` adds to a class of models."""
    for known, kind in _KINDS.items():
        if issubclass(cls, known):
            return kind
    names = ", ".join(known.__name__ for known in (*_KINDS, GeneralizedRCNN))
    raise TypeError(f"model must be one of torchvision's {names}, got {cls.__name__}")


@functools.cache
def _with_loss(plain: Any) -> Any:
    """The class of a model whose class was `plain`, under the same name."""
    names = {name: getattr(plain, name) for name in ("__module__", "__qualname__", "__doc__")}
    ignored = [*getattr(plain, "__jit_ignored_attributes__", ()), *_ADDED]
    own = {"plain_class": plain, "__jit_ignored_attributes__": ignored, **dict.fromkeys(_NOTED)}
    return type(plain.__name__, (_kind_of(plain), plain), names | own)


def _without_state(plain: type) -> Any:
    """What a copy or a pickle of a model begins with."""
    cls = _with_loss(plain)
    return cls.__new__(cls)
