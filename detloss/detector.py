"""DetectorLoss: match, encode or decode, classify and regress, normalise, weigh, name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from detloss.boxes.checking import check_boxes, check_floating
from detloss.boxes.looking import may_look
from detloss.classification import ClassificationLoss
from detloss.coders import Coder, DeltaCoder
from detloss.matchers import Matcher, Matches
from detloss.normalizers import Counts, Normalizer, PositivesNormalizer
from detloss.registry import SECTIONS
from detloss.regression import BoxLoss
from detloss.samplers import AllSampler, Sampler
from detloss.validation import validate_predictions, validate_targets

Target = Mapping[str, Tensor]


@dataclass(frozen=True)
class DetectorOutput:
    """What a criterion says of a batch.

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
            "total": self.total.item(),
            **{name: value.item() for name, value in self.terms.items()},
            **{f"{name}/unweighted": value.item() for name, value in self.unweighted.items()},
        }


class DetectorLoss(nn.Module):
    """The loss of a one-stage detector, put together from parts.

    For each image the matcher says which anchors answer for which ground truth and the sampler
    which of them count. The classification loss is summed over the anchors that count, the box
    loss over the positive ones; each sum is divided by what the normalizer says and multiplied by
    the term's weight. A box loss on deltas gets encoded targets, one on boxes decoded
    predictions: the loss says which.

    Nothing depends on ``train()`` or ``eval()``. Every prediction gets a gradient in every call,
    zero where no image has an object.

    Args:
        matcher: Which anchor answers for which ground truth.
        classification: Loss of "class_logits".
        box: Loss of "box_regression".
        coder: What "box_regression" means; `DeltaCoder` by default.
        sampler: Which matched anchors count; all by default.
        normalizer: What sums are divided by; the positives of the batch by default.
        weights: Factors of the terms "classification" and "box", 1 where not given.
        validate: Debug validation: look at the values of predictions and targets in every call
            and name the first bad one. Off by default, since it makes a GPU wait.

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
        self.validate = validate

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
    ) -> DetectorOutput:
        """The loss of a batch of B images with A anchors each.

        Args:
            predictions: "class_logits" (B, A, C) and "box_regression" (B, A, 4), floating point.
                C counts a background column if the classification loss has one.
            targets: For each image "boxes" (M, 4) as (x1, y1, x2, y2) in the unit of the anchors,
                "labels" (M,) integers in 0..C-1, and optionally "ignore" (M,) bool: crowd or
                don't-care regions. M may be 0.
            anchors: (A, 4), or a list of B such.
            level_sizes: Anchors of each pyramid level, for a matcher that needs it.
            normalizer: Divides every sum instead of what the normalizer says, such as the
                positives of all the micro-batches of a step.
            matches: Which anchor answers for what in each image, such as the ``matches`` of another
                output; by default the matcher and the sampler say.

        Returns:
            Total, terms and matches.

        Raises:
            TypeError: If a tensor has the wrong type.
            ValueError: If something is missing or a shape does not fit; with `validate`, if a
                value is bad.
        """
        logits, regression = self._check_predictions(predictions)
        batch, count = logits.shape[:2]
        anchors_of = self._check_anchors(anchors, batch, count)
        self._check_targets(targets, batch)
        if "level_sizes" in self.matcher.needs and level_sizes is None:
            raise ValueError(f"matcher {self.matcher.type_name} needs level_sizes, got None")
        if self.validate:
            validate_targets(targets, self._classes(logits))
            validate_predictions({"classification": logits, "box": regression})

        with torch.no_grad():
            if matches is None:
                matches = self._match(targets, anchors_of, logits, regression, level_sizes)
                matches = self._sample(matches, targets, logits)
            positive = torch.stack([m.positive for m in matches])
            share = self._divisor(positive, normalizer).reciprocal()[:, None].expand(batch, count)

        losses = {
            "classification": self.classification.compute(
                logits, self._class_target(matches, targets, logits), weight=share, reduction="sum"
            ),
            "box": self._box_loss(regression, anchors_of, targets, matches, positive, share),
        }
        terms = {name: loss * self.weights[name] for name, loss in losses.items()}
        return DetectorOutput(
            total=terms["classification"] + terms["box"],
            terms=terms,
            unweighted={name: loss.detach() for name, loss in losses.items()},
            matches=list(matches),
        )

    def _match(
        self,
        targets: Sequence[Target],
        anchors: Sequence[Tensor],
        logits: Tensor,
        regression: Tensor,
        level_sizes: Sequence[int] | None,
    ) -> list[Matches]:
        """Each image's matches; predictions are decoded only for a matcher that asks for them."""
        needs = self.matcher.needs
        return [
            self.matcher(
                image_anchors,
                target["boxes"],
                gt_labels=target["labels"],
                gt_ignore=target.get("ignore"),
                level_sizes=level_sizes,
                class_logits=image_logits if "class_logits" in needs else None,
                pred_boxes=self.coder.decode(deltas, image_anchors)
                if "pred_boxes" in needs
                else None,
            )
            for target, image_anchors, image_logits, deltas in zip(
                targets, anchors, logits, regression, strict=True
            )
        ]

    def _sample(
        self, matches: list[Matches], targets: Sequence[Target], logits: Tensor
    ) -> list[Matches]:
        if not self.sampler.needs_class_loss:
            return [self.sampler(m) for m in matches]
        loss = self.classification.compute(
            logits, self._class_target(matches, targets, logits), weight=None, reduction="none"
        )
        loss_of_anchor = loss.sum(-1) if loss.ndim == logits.ndim else loss
        return [self.sampler(m, row) for m, row in zip(matches, loss_of_anchor, strict=True)]

    def _class_target(
        self, matches: Sequence[Matches], targets: Sequence[Target], logits: Tensor
    ) -> Tensor:
        """(B, A) class indices: labels, the background's index, or the index to ignore."""
        background = self._classes(logits)
        rows = []
        for match, target in zip(matches, targets, strict=True):
            labels = nn.functional.pad(target["labels"].long(), (0, 1), value=background)
            index = torch.where(match.positive, match.target_index, len(labels) - 1)
            rows.append(torch.where(match.ignored, self.classification.ignore_index, labels[index]))
        return torch.stack(rows)

    def _box_loss(
        self,
        regression: Tensor,
        anchors: Sequence[Tensor],
        targets: Sequence[Target],
        matches: Sequence[Matches],
        positive: Tensor,
        weight: Tensor,
    ) -> Tensor:
        """The box loss of the positive anchors, in the space that the loss asks for.

        Where picking the positive anchors would be a wait, all of them are computed, and the
        others silenced.
        """
        answers = []  # each anchor's ground truth among those of all images
        first = 0
        for match, target in zip(matches, targets, strict=True):
            answers.append(match.target_index + first)
            first += len(target["boxes"])
        # the last row is nobody's: without any object there still is a row 0 to point at
        boxes = torch.cat([*(target["boxes"] for target in targets), anchors[0][:1]])
        shared = all(image_anchors is anchors[0] for image_anchors in anchors)
        all_anchors = anchors[0] if shared else torch.cat(list(anchors))
        answer, deltas = torch.cat(answers), regression.flatten(0, 1)
        weight, positive = weight.flatten(), positive.flatten()
        if may_look(positive):
            chosen = positive.nonzero().view(-1)
            positive_anchors = all_anchors[chosen % max(len(all_anchors), 1)]
            deltas, answer, weight = (
                values.index_select(0, chosen) for values in (deltas, answer, weight)
            )
        else:
            positive_anchors = all_anchors.repeat(len(matches) if shared else 1, 1)
            weight = torch.where(positive, weight, 0)
        boxes = boxes[answer]
        if self.box.space == "deltas":
            encoded = self.coder.encode(boxes, positive_anchors)
            return self.box.compute(deltas, encoded, weight=weight, reduction="sum")
        decoded = self.coder.decode(deltas, positive_anchors)
        return self.box.compute(decoded, boxes, weight=weight, reduction="sum")

    def _divisor(self, positive: Tensor, normalizer: Tensor | float | None) -> Tensor:
        """(B,) what each image's sums are divided by."""
        if normalizer is None:
            divisor: Tensor = self.normalizer(Counts(positives=positive.sum(1)))
            return divisor.to(torch.get_default_dtype())
        shape = (len(positive),)
        if not isinstance(normalizer, Tensor):
            return torch.full(shape, float(normalizer), device=positive.device)
        if normalizer.ndim:
            raise ValueError(f"normalizer must be a number, got shape {tuple(normalizer.shape)}")
        return normalizer.to(positive.device, torch.get_default_dtype()).expand(shape)

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
