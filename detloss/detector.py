"""DetectorLoss: match, encode or decode, classify and regress, normalise, weigh, name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from detloss.boxes.checking import check_boxes
from detloss.classification import ClassificationLoss
from detloss.coders import Coder, DeltaCoder
from detloss.matchers import Matcher, Matches
from detloss.matchers.base import check_match_inputs
from detloss.normalizers import Counts, Normalizer, PositivesNormalizer
from detloss.registry import SECTIONS
from detloss.regression import BoxLoss
from detloss.samplers import AllSampler, Sampler
from detloss.tensors import check_floating, sync_is_free, wide_type
from detloss.validation import (
    validate_answers,
    validate_matches,
    validate_predictions,
    validate_targets,
    validate_terms,
    validation_wanted,
)

Target = Mapping[str, Tensor]
TermReduction = Literal["sum", "image"]


@dataclass(frozen=True)
class DetectorOutput:
    """What a criterion says of a batch.

    With ``reduction="image"`` every loss is (B,), and adds up to the 0-d one.

    Attributes:
        total: 0-d, the sum of `terms`: the thing to call ``backward`` on.
        terms: Name -> weighted 0-d loss; the same names in every call.
        unweighted: Name -> the loss before its weight, detached.
        matches: For each image, which anchors answered for what, after sampling.
    """

    total: Tensor
    terms: dict[str, Tensor]
    unweighted: dict[str, Tensor]
    matches: list[Matches]

    def log(self) -> dict[str, float]:
        """Numbers for a logger: "total", each term, and each as "<term>/unweighted".

        It waits for the device, so call it as often as you log and not in every step.
        """
        return {
            "total": self.total.sum().item(),
            **{name: value.sum().item() for name, value in self.terms.items()},
            **{f"{name}/unweighted": value.sum().item() for name, value in self.unweighted.items()},
        }


class DetectorLoss(nn.Module):
    """The loss of a one-stage detector, put together from parts.

    For each image the matcher says which anchors answer for which ground truth and the sampler
    which of them count. The classification loss is summed over the anchors that count, the box
    loss over the positive ones; each sum is divided by what the normalizer says and multiplied by
    the term's weight. A box loss on deltas gets encoded targets, one on boxes decoded
    predictions: the loss says which.

    Nothing depends on ``train()`` or ``eval()`` but a normalizer with a memory. Every prediction
    gets a gradient in every call, zero where no image has an object.

    Args:
        matcher: Which anchor answers for which ground truth.
        classification: Loss of "class_logits".
        box: Loss of "box_regression".
        coder: What "box_regression" means; `DeltaCoder` by default.
        sampler: Which matched anchors count; all by default.
        normalizer: What sums are divided by; the positives of the batch by default.
        weights: Factors of the terms "classification" and "box", 1 where not given.
        validate: Debug validation: look at the values of predictions, targets and losses in every
            call, name the first bad one, and warn of objects that no anchor answers for. Off by
            default, since it makes a GPU wait; the environment variable ``DETLOSS_VALIDATE=1``
            switches it on for every criterion built after.

    Raises:
        ValueError: If a weight is negative or unknown, the classification loss has no gradient,
            or the matcher needs what a criterion cannot give it.

    Example:
        >>> from detloss.classification import SigmoidFocalLoss
        >>> from detloss.matchers import MaxIoUMatcher
        >>> from detloss.regression import GIoULoss
        >>> criterion = DetectorLoss(
        ...     matcher=MaxIoUMatcher(), classification=SigmoidFocalLoss(), box=GIoULoss()
        ... )
        >>> logits, regression = torch.zeros(1, 2, 3), torch.zeros(1, 2, 4)
        >>> anchors = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
        >>> output = criterion(
        ...     {"class_logits": logits, "box_regression": regression},
        ...     [{"boxes": anchors[:1], "labels": torch.tensor([2])}],
        ...     anchors=anchors,
        ... )
        >>> output.terms
        {'classification': tensor(0.6931), 'box': tensor(0.)}
    """

    term_names: ClassVar[tuple[str, ...]] = ("classification", "box")

    def __init__(
        self,
        *,
        matcher: Matcher,
        classification: ClassificationLoss,
        box: BoxLoss,
        coder: Coder | None = None,
        sampler: Sampler | None = None,
        normalizer: Normalizer | None = None,
        weights: Mapping[str, float] | None = None,
        validate: bool = False,
    ) -> None:
        super().__init__()
        self.matcher = matcher
        self.coder = coder if coder is not None else DeltaCoder()
        self.sampler = sampler if sampler is not None else AllSampler()
        self.classification = classification
        self.box = box
        self.normalizer = normalizer if normalizer is not None else PositivesNormalizer()
        self.weights = self._checked_weights(weights or {})
        self.validate = validate or validation_wanted()

        if not classification.differentiable:
            raise ValueError(
                f"classification: {classification.type_name} is a metric without gradient, "
                "it cannot be trained on"
            )
        unknown = matcher.needs - {"gt_labels", "level_sizes", "class_logits", "pred_boxes"}
        if unknown:
            raise ValueError(
                f"matcher: {matcher.type_name} needs {', '.join(sorted(unknown))}, "
                "which a criterion does not have"
            )

    def _checked_weights(self, weights: Mapping[str, float]) -> dict[str, float]:
        for name, weight in weights.items():
            if name not in self.term_names:
                raise ValueError(f"weights must name {', '.join(self.term_names)}, got {name!r}")
            if not 0 <= weight < float("inf"):
                raise ValueError(f"weights[{name!r}] must be finite and at least 0, got {weight}")
        return {name: float(weights.get(name, 1.0)) for name in self.term_names}

    def config(self) -> dict[str, Any]:
        """The resolved config; `detloss.build` makes an equal criterion of it."""
        resolved = {name: getattr(self, name).config() for name in SECTIONS}
        for name in self.term_names:
            del resolved[name]["reduction"]  # the normalizer decides it
            resolved[name]["weight"] = self.weights[name]
        return resolved

    def extra_repr(self) -> str:
        return f"weights={self.weights}, validate={self.validate}"

    def forward(
        self,
        predictions: Mapping[str, Tensor],
        targets: Sequence[Target],
        *,
        anchors: Tensor | Sequence[Tensor],
        level_sizes: Sequence[int] | None = None,
        normalizer: Tensor | float | None = None,
        matches: Sequence[Matches] | None = None,
        reduction: TermReduction = "sum",
    ) -> DetectorOutput:
        """The loss of a batch of B images with A anchors each.

        Args:
            predictions: "class_logits" (B, A, C) and "box_regression" (B, A, 4), floating point.
                C counts a background column if the classification loss has one.
            targets: For each image "boxes" (M, 4) as (x1, y1, x2, y2) in the unit of the anchors,
                "labels" (M,) integers in 0..C-1. M may be 0. Optionally "ignore" (M,) bool: crowd
                or don't-care regions; "weights" (M,): factors of both losses of the anchors that
                answer for a box; "class_mask" (C,) bool: the classes that are labelled in this
                image, the others get no gradient (not for a softmax).
            anchors: (A, 4), or a list of B such.
            level_sizes: Anchors of each pyramid level, for a matcher that needs it.
            normalizer: Divides every sum instead of what the normalizer says, such as the
                positives of all the micro-batches of a step.
            matches: Which anchor answers for what in each image, such as those of `match`; by
                default the matcher and the sampler say.
            reduction: "sum", or "image" for losses (B,) that add up to those of the batch.

        Returns:
            Total, terms and matches.

        Raises:
            TypeError: If a tensor has the wrong type.
            ValueError: If something is missing or a shape does not fit; with `validate`, if a
                value is bad.
        """
        if reduction not in get_args(TermReduction):
            raise ValueError(f"reduction must be 'sum' or 'image', got {reduction!r}")
        logits, regression = self._check_predictions(predictions)
        batch, count = logits.shape[:2]
        self._check_targets(targets, batch)
        anchors_of = self._check_anchors(anchors, batch, count)
        if matches is not None and len(matches) != batch:
            raise ValueError(f"matches must be {batch}, one an image, got {len(matches)}")
        if self.validate:
            validate_targets(targets, self._classes(logits), anchors_of)
            validate_answers(targets, matches or [])
            validate_predictions({"classification": logits, "box": regression})

        with torch.no_grad():
            if matches is None:
                matches = self._match(targets, anchors_of, logits, regression, level_sizes)
            positive = torch.stack([m.positive for m in matches])
            truths = self._truths(targets, logits)
            answer = truths.answers(matches)
            worth = None if truths.weights is None else truths.weights[answer]
            divisor = self._divisor(targets, positive, worth, normalizer, wide_type(logits))
            weight = divisor.reciprocal()[:, None].expand(batch, count)
            weight = weight if worth is None else weight * worth
            class_target = self._class_target(matches, truths.labels[answer])
            known = self._class_mask(targets, logits)

        losses = {
            "classification": self.classification.compute(
                logits,
                class_target,
                weight=weight if known is None else torch.where(known, weight[..., None], 0),
                reduction=reduction,
            ),
            "box": self._box_loss(
                regression, anchors_of, truths.boxes, answer, positive, weight, reduction
            ),
        }
        if self.validate:
            validate_terms(losses)
        terms = {name: loss * self.weights[name] for name, loss in losses.items()}
        return DetectorOutput(
            total=terms["classification"] + terms["box"],
            terms=terms,
            unweighted={name: loss.detach() for name, loss in losses.items()},
            matches=list(matches),
        )

    @torch.no_grad()
    def match(
        self,
        targets: Sequence[Target],
        *,
        anchors: Tensor | Sequence[Tensor],
        predictions: Mapping[str, Tensor] | None = None,
        level_sizes: Sequence[int] | None = None,
    ) -> list[Matches]:
        """Which anchors answer for what in each image, after sampling: what `forward` would use.

        With it the positives of all micro-batches of a step are known before the first of them, and
        can be passed to each as ``normalizer``.

        Args:
            targets: See `forward`.
            anchors: See `forward`.
            predictions: See `forward`; only for a matcher or sampler that looks at them.
            level_sizes: See `forward`.

        Raises:
            TypeError: If a tensor has the wrong type.
            ValueError: If something is missing or a shape does not fit.

        Example:
            >>> import detloss
            >>> criterion = detloss.load_config("configs/retinanet.yaml")
            >>> anchors = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
            >>> target = {"boxes": anchors[1:], "labels": torch.tensor([2])}
            >>> criterion.match([target], anchors=anchors)[0].positive
            tensor([False,  True])
        """
        logits = regression = None
        if predictions is not None:
            logits, regression = self._check_predictions(predictions)
        self._check_targets(targets, len(targets) if logits is None else len(logits))
        count = len(anchors if isinstance(anchors, Tensor) else anchors[0]) if targets else 0
        anchors_of = self._check_anchors(anchors, len(targets), count)
        if self.validate:
            classes = None if logits is None else self._classes(logits)
            validate_targets(targets, classes, anchors_of)
        return self._match(targets, anchors_of, logits, regression, level_sizes)

    def _match(
        self,
        targets: Sequence[Target],
        anchors: Sequence[Tensor],
        logits: Tensor | None,
        regression: Tensor | None,
        level_sizes: Sequence[int] | None,
    ) -> list[Matches]:
        """Each image's matches; predictions are decoded only for a matcher that asks for them."""
        needs = self.matcher.needs
        if "level_sizes" in needs and level_sizes is None:
            raise ValueError(f"matcher {self.matcher.type_name} needs level_sizes, got None")
        if needs & {"class_logits", "pred_boxes"} and logits is None:
            raise ValueError(f"matcher {self.matcher.type_name} needs predictions, got None")
        matches = []
        for image, (target, image_anchors) in enumerate(zip(targets, anchors, strict=True)):
            of_predictions: dict[str, Tensor] = {}
            if "class_logits" in needs and logits is not None:
                of_predictions["class_logits"] = logits[image]
            if "pred_boxes" in needs and regression is not None:
                of_predictions["pred_boxes"] = self.coder.decode(regression[image], image_anchors)
            matches.append(
                self.matcher(
                    image_anchors,
                    target["boxes"],
                    gt_labels=target["labels"],
                    gt_ignore=target.get("ignore"),
                    level_sizes=level_sizes,
                    **of_predictions,
                )
            )
        if self.validate:
            validate_matches(targets, matches)
        return self._sample(matches, targets, logits)

    def _sample(
        self, matches: list[Matches], targets: Sequence[Target], logits: Tensor | None
    ) -> list[Matches]:
        if not self.sampler.needs_class_loss:
            return [self.sampler(m) for m in matches]
        if logits is None:
            raise ValueError(f"sampler {self.sampler.type_name} needs predictions, got None")
        truths = self._truths(targets, logits)
        class_target = self._class_target(matches, truths.labels[truths.answers(matches)])
        known = self._class_mask(targets, logits)
        weight = None if known is None else known.expand_as(logits)
        loss = self.classification.compute(logits, class_target, weight=weight, reduction="none")
        loss_of_anchor = loss.sum(-1) if loss.ndim == logits.ndim else loss
        return [self.sampler(m, row) for m, row in zip(matches, loss_of_anchor, strict=True)]

    def _truths(self, targets: Sequence[Target], logits: Tensor) -> "_Truths":
        """The ground truths of all images."""
        device = logits.device
        nobody = torch.full((1,), self._classes(logits), device=device)
        weights = None
        if any("weights" in target for target in targets):
            given = [t.get("weights", t["labels"].new_ones(len(t["labels"]))) for t in targets]
            weights = torch.cat([*(w.to(wide_type(logits)) for w in given), nobody.new_ones(1)])
        return _Truths(
            boxes=torch.cat([target["boxes"] for target in targets]),
            labels=torch.cat([*(target["labels"].long() for target in targets), nobody]),
            weights=weights,
            counts=[len(target["boxes"]) for target in targets],
        )

    def _class_target(self, matches: Sequence[Matches], labels: Tensor) -> Tensor:
        """(B, A) class indices: those of `labels`, or the index to ignore."""
        ignored = torch.stack([m.ignored for m in matches])
        return torch.where(ignored, self.classification.ignore_index, labels)

    def _class_mask(self, targets: Sequence[Target], logits: Tensor) -> Tensor | None:
        """(B, 1, C) bool, the classes that are labelled in each image; None for all in all."""
        if not any("class_mask" in target for target in targets):
            return None
        if self.classification.background_columns:
            raise ValueError(
                "targets with 'class_mask' need a yes-or-no classification loss such as "
                "sigmoid_focal, since the classes of a softmax share one probability, got "
                f"{self.classification.type_name}"
            )
        classes = logits.shape[-1]
        everything = torch.ones(classes, dtype=torch.bool, device=logits.device)
        masks = [target.get("class_mask", everything) for target in targets]
        for image, mask in enumerate(masks):
            if mask.dtype != torch.bool or mask.shape != (classes,):
                raise ValueError(
                    f"targets[{image}]['class_mask'] must be boolean of shape {(classes,)}, "
                    f"got {mask.dtype} of shape {tuple(mask.shape)}"
                )
        return torch.stack(masks)[:, None]

    def _box_loss(
        self,
        regression: Tensor,
        anchors: Sequence[Tensor],
        boxes: Tensor,
        answer: Tensor,
        positive: Tensor,
        weight: Tensor,
        reduction: TermReduction,
    ) -> Tensor:
        """The box loss of the positive anchors, in the space that the loss asks for.

        Where picking the positive anchors would be a wait, all of them are computed, and the
        others silenced.
        """
        batch, count = positive.shape
        shared = all(image_anchors is anchors[0] for image_anchors in anchors)
        all_anchors = anchors[0] if shared else torch.cat(list(anchors))
        boxes = torch.cat([boxes, all_anchors[:1]])  # the last row, nobody's
        deltas, answer = regression.flatten(0, 1), answer.flatten()
        weight, positive = weight.flatten(), positive.flatten()
        chosen = None
        if sync_is_free(positive):
            chosen = positive.nonzero().view(-1)
            positive_anchors = all_anchors[chosen % max(len(all_anchors), 1)]
            deltas, answer, weight = (
                values.index_select(0, chosen) for values in (deltas, answer, weight)
            )
        else:
            positive_anchors = all_anchors.repeat(batch if shared else 1, 1)
            weight = torch.where(positive, weight, 0)
        boxes = boxes[answer]
        if self.box.space == "deltas":
            pred, target = deltas, self.coder.encode(boxes, positive_anchors)
        else:
            pred, target = self.coder.decode(deltas, positive_anchors), boxes
        if reduction == "sum":
            return self.box.compute(pred, target, weight=weight, reduction="sum")
        rows = self.box.compute(pred, target, weight=weight, reduction="none")
        if chosen is None:
            return rows.view(batch, count).sum(1)
        return rows.new_zeros(batch).index_add(0, chosen // max(count, 1), rows)

    def _divisor(
        self,
        targets: Sequence[Target],
        positive: Tensor,
        worth: Tensor | None,
        normalizer: Tensor | float | None,
        dtype: torch.dtype,
    ) -> Tensor:
        """(B,) what each image's sums are divided by."""
        if normalizer is None:
            divisor: Tensor = self.normalizer(
                Counts(
                    positives=positive.sum(1),
                    ground_truths=torch.stack([_to_learn(target) for target in targets]),
                    target_scores=(positive if worth is None else positive * worth).sum(1),
                )
            )
            return divisor.to(dtype)
        shape = (len(positive),)
        if not isinstance(normalizer, Tensor):
            return torch.full(shape, float(normalizer), dtype=dtype, device=positive.device)
        if normalizer.ndim:
            raise ValueError(f"normalizer must be a number, got shape {tuple(normalizer.shape)}")
        return normalizer.to(positive.device, dtype).expand(shape)

    def _classes(self, logits: Tensor) -> int:
        """The foreground classes, C; also the class index that means background."""
        return logits.shape[-1] - self.classification.background_columns

    def _check_predictions(self, predictions: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        for name in ("class_logits", "box_regression"):
            if name not in predictions:
                raise ValueError(
                    f"predictions must have 'class_logits' and 'box_regression', "
                    f"got {', '.join(map(repr, predictions)) or 'nothing'}"
                )
            check_floating(f"predictions[{name!r}]", predictions[name])
        logits, regression = predictions["class_logits"], predictions["box_regression"]
        if logits.ndim != 3:
            raise ValueError(
                f"predictions['class_logits'] must have shape (B, A, C), got {tuple(logits.shape)}"
            )
        if not len(logits):
            raise ValueError("predictions must be of at least one image, got none")
        expected = (*logits.shape[:2], 4)
        if regression.shape != expected:
            raise ValueError(
                f"predictions['box_regression'] must have shape {expected}, "
                f"got {tuple(regression.shape)}"
            )
        return logits, regression

    def _check_anchors(
        self, anchors: Tensor | Sequence[Tensor], batch: int, count: int
    ) -> list[Tensor]:
        """The anchors of each image."""
        anchors_of = [anchors] * batch if isinstance(anchors, Tensor) else list(anchors)
        if len(anchors_of) != batch:
            raise ValueError(f"anchors must be one tensor or {batch}, got {len(anchors_of)}")
        for image_anchors in anchors_of:
            check_boxes("anchors", image_anchors)
            if image_anchors.shape != (count, 4):
                raise ValueError(
                    f"anchors must have shape {(count, 4)}, got {tuple(image_anchors.shape)}"
                )
        return anchors_of

    def _check_targets(self, targets: Sequence[Target], batch: int) -> None:
        if len(targets) != batch:
            raise ValueError(f"targets must be {batch}, one an image, got {len(targets)}")
        for image, target in enumerate(targets):
            for key in ("boxes", "labels"):
                if key not in target:
                    raise ValueError(f"targets[{image}] must have {key!r}, got {list(target)}")
            boxes, labels = target["boxes"], target["labels"]
            check_boxes(f"targets[{image}]['boxes']", boxes)
            if boxes.ndim != 2 or labels.shape != boxes.shape[:1]:
                raise ValueError(
                    f"targets[{image}] must have boxes (M, 4) and labels (M,), "
                    f"got {tuple(boxes.shape)} and {tuple(labels.shape)}"
                )
            if labels.dtype.is_floating_point or labels.dtype == torch.bool:
                raise TypeError(f"targets[{image}]['labels'] must be integers, got {labels.dtype}")
            check_match_inputs(boxes, boxes, target.get("ignore"))
            weights = target.get("weights", labels)
            if weights.shape != labels.shape:
                raise ValueError(
                    f"targets[{image}]['weights'] must have shape {tuple(labels.shape)}, "
                    f"got {tuple(weights.shape)}"
                )


@dataclass(frozen=True)
class _Truths:
    """The T ground truths of all images in one table, whose last row is nobody's.

    Attributes:
        boxes: (T, 4); nobody has no box.
        labels: (T + 1,) class indices; nobody's means background.
        weights: (T + 1,) factors, nobody's 1; None for all 1.
        counts: Of each image.
    """

    boxes: Tensor
    labels: Tensor
    weights: Tensor | None
    counts: list[int]

    def answers(self, matches: Sequence[Matches]) -> Tensor:
        """(B, A) the row of the table that each anchor answers for."""
        rows, first = [], 0
        for match, count in zip(matches, self.counts, strict=True):
            rows.append(torch.where(match.positive, match.target_index + first, len(self.boxes)))
            first += count
        return torch.stack(rows)


def _to_learn(target: Target) -> Tensor:
    """How many boxes of an image are not to be ignored, 0-d."""
    if "ignore" in target:
        return (~target["ignore"]).sum()
    return target["labels"].new_full((), len(target["labels"]), dtype=torch.long)
