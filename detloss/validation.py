"""Debug validation: looks at values, which the hot path never does, and names the first bad one."""

import os
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from detloss.inputs import PROBABILITIES, TARGET_KEYS, Inputs
from detloss.matchers import Matches
from detloss.parts import classifier_of
from detloss.registry import plain_value
from detloss.terms import Term

# A box reaches as far as its largest coordinate, by magnitude. Fractions may leave the image, wide
# anchors at its edge most of all, and no image that is trained on is as small as 20 pixels.
FRACTIONS_REACH, PIXELS_REACH = 2.0, 20.0


def validation_wanted() -> bool:
    """Whether the environment variable DETLOSS_VALIDATE switches debug validation on.

    "1", "true", "yes" and "on" do, in any case; "0", "false", "no", "off", "" or no variable do
    not.

    Raises:
        ValueError: If the variable is anything else.

    Example:
        >>> from unittest.mock import patch
        >>> with patch.dict(os.environ, DETLOSS_VALIDATE="on"):
        ...     validation_wanted()
        True
    """
    value = os.environ.get("DETLOSS_VALIDATE", "")
    if value.lower() in ("1", "true", "yes", "on"):
        return True
    if value.lower() in ("", "0", "false", "no", "off"):
        return False
    raise ValueError(
        "DETLOSS_VALIDATE must be one of 1, true, yes, on, or one of 0, false, no, off, "
        f"or empty, got {value!r}"
    )


def validate_call(inputs: Inputs, terms: Mapping[str, Term], matches: Sequence[Matches]) -> None:
    """Looks at all that a criterion is given, as `validate_inputs` does.

    Args:
        inputs: The batch.
        terms: The terms of the criterion by name.
        matches: Those that the caller gave; empty for none.

    Raises:
        ValueError: At the first bad value.
    """
    predictions = inputs.predictions
    read = {
        name: predictions[term.reads] for name, term in terms.items() if term.reads in predictions
    }
    classes, classifier = None, classifier_of(terms.values())
    if classifier is not None and not classifier.one_logit and classifier.reads in predictions:
        classes = classifier.classes(predictions)
    validate_inputs(inputs, classes, matches, read)


def validate_inputs(
    inputs: Inputs,
    classes: int | None,
    matches: Sequence[Matches],
    predictions: Mapping[str, Tensor],
) -> None:
    """Looks at all that a criterion is given.

    Args:
        inputs: The batch.
        classes: How many foreground classes there are, C; None where no term has classes.
        matches: Those that the caller gave; empty for none.
        predictions: Term -> (B, A) or (B, A, K), what the term is computed from.

    Raises:
        ValueError: At the first bad value; see the functions below.
    """
    validate_keys(inputs.targets)
    validate_targets(inputs.targets, classes, inputs.anchors)
    validate_given_matches(inputs.targets, matches)
    if PROBABILITIES in inputs.predictions:
        validate_probabilities(inputs.predictions[PROBABILITIES])
    validate_predictions(predictions)


def validate_keys(targets: Sequence[Mapping[str, Tensor]]) -> None:
    """Warns of entries of targets that a criterion does not read.

    Args:
        targets: One mapping an image.

    Warns:
        UserWarning: Once for the batch, naming the entries and what is read.

    Example:
        >>> with warnings.catch_warnings(record=True, action="always") as caught:
        ...     validate_keys([{"boxes": torch.zeros(0, 4), "iscrowd": torch.zeros(0)}])
        >>> str(caught[0].message).split(";")[0]
        "targets have 'iscrowd', which nothing reads"
    """
    unread = dict.fromkeys(key for target in targets for key in target if key not in TARGET_KEYS)
    if unread:
        warnings.warn(
            f"targets have {', '.join(map(repr, unread))}, which nothing reads; a criterion reads "
            f"{', '.join(map(repr, TARGET_KEYS))}",
            stacklevel=2,
        )


def validate_targets(
    targets: Sequence[Mapping[str, Tensor]], classes: int | None, anchors: Sequence[Tensor]
) -> None:
    """Raises at the first label outside 0..C-1 and the first box that cannot be learned.

    Labels, weights and boxes of ignore regions are not looked at, but boxes for finiteness.

    Where at least half of the batch's boxes are inverted, the message also asks for their format.
    Boxes and anchors are of different units when all the boxes of the batch lie within 2 of the
    origin, like fractions of the image, while some anchor reaches 20 or further, like pixels; or
    the other way round. So a batch with one box of ordinary size is never refused for
    its tiny ones, and a batch of zeros, such as padding, is not judged.

    Args:
        targets: For each image "boxes" (M, 4), "labels" (M,), and optionally "ignore" (M,) bool
            and "weights" (M,), which must be finite and at least 0. M may be 0.
        classes: How many foreground classes there are, C; None where no term has classes.
        anchors: (A, 4) for each image.

    Raises:
        ValueError: Naming image, index and value.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 5, 5]])
        >>> target = {"boxes": boxes, "labels": torch.tensor([3])}
        >>> validate_targets([target], classes=3, anchors=[boxes])
        Traceback (most recent call last):
        ValueError: targets[0]['labels'][0] must be in 0..2, got 3
    """
    for image, target in enumerate(targets):
        boxes, learned = target["boxes"], _learned(target)
        labels = target.get("labels", torch.zeros_like(learned, dtype=torch.long))
        weights = target.get("weights", torch.ones_like(labels))
        most = torch.inf if classes is None else classes
        mislabelled = learned & ((labels < 0) | (labels >= most))
        infinite = ~boxes.isfinite().all(1)
        misweighted = learned & ~(weights.isfinite() & (weights >= 0))
        for key, bad, rule in (
            ("labels", mislabelled, f"be in 0..{most - 1}"),
            ("boxes", infinite, "be finite"),
            ("weights", misweighted, "be finite and at least 0"),
        ):
            if bad.any():
                raise ValueError(_fault(targets, image, key, int(bad.nonzero()[0]), rule))
    _check_corners(targets)
    _check_unit(targets, anchors)


def validate_predictions(predictions: Mapping[str, Tensor]) -> None:
    """Raises at the first prediction that is not finite.

    Args:
        predictions: Term -> (B, A) or (B, A, K), what the term is computed from.

    Raises:
        ValueError: Naming image, term, anchor, column and value.

    Example:
        >>> validate_predictions({"box": torch.tensor([[[0.0, float("nan"), 0, 0]]])})
        Traceback (most recent call last):
        ValueError: term 'box', image 0: prediction of anchor 0, column 1 must be finite, got nan
    """
    for term, values in predictions.items():
        bad = ~values.isfinite()
        if bad.any():
            image, anchor, *column = bad.nonzero()[0].tolist()
            place = f", column {column[0]}" if column else ""
            raise ValueError(
                f"term {term!r}, image {image}: prediction of anchor {anchor}{place} "
                f"must be finite, got {values[image, anchor, *column].item()}"
            )


def validate_probabilities(probabilities: Tensor) -> None:
    """Raises at the first of "class_probabilities" (B, A, C) that is outside [0, 1].

    Raises:
        ValueError: Naming image, anchor, class and value.

    Example:
        >>> validate_probabilities(torch.tensor([[[0.5, 1.25]]]))
        Traceback (most recent call last):
        ValueError: predictions['class_probabilities'][0, 0, 1] must be in [0, 1], got 1.25
    """
    bad = ~((probabilities >= 0) & (probabilities <= 1))
    if bad.any():
        place = bad.nonzero()[0].tolist()
        raise ValueError(
            f"predictions[{PROBABILITIES!r}]{place} must be in [0, 1], "
            f"got {probabilities[tuple(place)].item():g}"
        )


def validate_matches(targets: Sequence[Mapping[str, Tensor]], matches: Sequence[Matches]) -> None:
    """Warns of ground truths to which no anchor is assigned: nothing will learn them.

    That need not be a mistake: in a crowd an anchor is assigned to one of several. Ignore regions
    claim no anchor and are left out.

    Args:
        targets: For each image "boxes" (M, 4), "labels" (M,) and optionally "ignore" (M,) bool.
        matches: What the matcher says of each image; a sampler may leave positive anchors out.

    Warns:
        UserWarning: Once for the batch, with their number and the first one's image, index and
            box.

    Example:
        >>> target = {"boxes": torch.tensor([[0.0, 0, 5, 5]]), "labels": torch.tensor([0])}
        >>> none = torch.tensor([False])
        >>> with warnings.catch_warnings(record=True, action="always") as caught:
        ...     validate_matches([target], [Matches(torch.tensor([0]), none, none)])
        >>> print(caught[0].message)
        1 of 1 ground truths matched no anchor, first targets[0]['boxes'][0], [0.0, 0.0, 5.0, 5.0]
    """
    unmatched, learned = [], 0
    for image, (target, match) in enumerate(zip(targets, matches, strict=True)):
        unclaimed = _learned(target)
        learned += int(unclaimed.sum())
        unclaimed[match.target_index[match.positive]] = False
        pairs = match.listed_pairs
        if pairs is not None:
            unclaimed[pairs[:, 1]] = False
        unmatched += [(image, index) for index in unclaimed.nonzero()[:, 0].tolist()]
    if unmatched:
        image, index = unmatched[0]
        warnings.warn(
            f"{len(unmatched)} of {learned} ground truths matched no anchor, first "
            f"targets[{image}]['boxes'][{index}], {targets[image]['boxes'][index].tolist()}",
            stacklevel=2,
        )


def validate_given_matches(
    targets: Sequence[Mapping[str, Tensor]], matches: Sequence[Matches]
) -> None:
    """Raises at the first anchor that is assigned to a ground truth that its image does not have.

    Or whose score is no quality, in [0, 1].

    Raises:
        ValueError: Naming image, anchor and index.

    Example:
        >>> target = {"boxes": torch.zeros(1, 4), "labels": torch.tensor([0])}
        >>> yes = torch.tensor([True])
        >>> validate_given_matches([target], [Matches(torch.tensor([1]), yes, ~yes)])
        Traceback (most recent call last):
        ValueError: matches[0].target_index[0] must be in 0..0, got 1
    """
    for image, match in enumerate(matches):
        count = len(targets[image]["boxes"])
        bad = match.positive & ((match.target_index < 0) | (match.target_index >= count))
        if bad.any():
            anchor = int(bad.nonzero()[0])
            raise ValueError(
                f"matches[{image}].target_index[{anchor}] must be in 0..{count - 1}, "
                f"got {match.target_index[anchor].item()}"
            )
        if match.score is not None:
            bad = match.positive & ~((match.score >= 0) & (match.score <= 1))
            if bad.any():
                anchor = int(bad.nonzero()[0])
                raise ValueError(
                    f"matches[{image}].score[{anchor}] must be in [0, 1], "
                    f"got {match.score[anchor].item():g}"
                )
        pairs = match.listed_pairs
        if pairs is not None:
            size = pairs.new_tensor([len(match.positive), count])
            beyond = ((pairs < 0) | (pairs >= size)).any(1)
            if beyond.any():
                row = int(beyond.nonzero()[0])
                raise ValueError(
                    f"matches[{image}].pairs[{row}] must be an anchor in 0..{size[0] - 1} and a "
                    f"ground truth in 0..{count - 1}, got {pairs[row].tolist()}"
                )


def validate_terms(terms: Mapping[str, Tensor]) -> None:
    """Raises at the first term of a loss, name -> 0-d or (B,), that is not finite.

    Raises:
        ValueError: Naming term and value.

    Example:
        >>> validate_terms({"classification": torch.tensor(0.7), "box": torch.tensor(torch.inf)})
        Traceback (most recent call last):
        ValueError: terms['box'] must be finite, got inf
    """
    for name, value in terms.items():
        if not value.isfinite().all():
            raise ValueError(f"terms[{name!r}] must be finite, got {value.tolist()}")


def _learned(target: Mapping[str, Tensor]) -> Tensor:
    """(M,) bool, the ground truths that are not ignore regions."""
    return ~target.get("ignore", target["boxes"].new_zeros(len(target["boxes"]), dtype=torch.bool))


def _fault(
    targets: Sequence[Mapping[str, Tensor]], image: int, key: str, index: int, rule: str
) -> str:
    bad = targets[image][key][index]
    value = plain_value(bad) if bad.ndim else bad.item()
    return f"targets[{image}][{key!r}][{index}] must {rule}, got {value}"


def _check_corners(targets: Sequence[Mapping[str, Tensor]]) -> None:
    """Raises at the first inverted box; where half of them are, asks for the format."""
    learned = [_learned(target) for target in targets]
    inverted = [
        among & (target["boxes"][:, 2:] < target["boxes"][:, :2]).any(1)
        for target, among in zip(targets, learned, strict=True)
    ]
    count, total = (sum(int(among.sum()) for among in masks) for masks in (inverted, learned))
    for image, bad in enumerate(inverted):
        if bad.any():
            index = int(bad.nonzero()[0])
            fault = _fault(targets, image, "boxes", index, "have x2 >= x1 and y2 >= y1")
            if count * 2 >= total:
                fault += (
                    f"; {count} of {total} boxes are inverted: did you mean "
                    "convert_boxes(boxes, 'xywh', 'xyxy'), or from 'cxcywh'?"
                )
            raise ValueError(fault)


def _check_unit(targets: Sequence[Mapping[str, Tensor]], anchors: Sequence[Tensor]) -> None:
    """Raises where boxes look like fractions and anchors like pixels, or the other way round."""
    reaches = [
        (reach, image, index)
        for image, target in enumerate(targets)
        for index, reach in enumerate((target["boxes"].abs().amax(1) * _learned(target)).tolist())
    ]
    reach, image, index = max(reaches, default=(0.0, 0, 0))
    anchors_reach = max((boxes.abs().max().item() for boxes in anchors if len(boxes)), default=0.0)
    if 0 < reach <= FRACTIONS_REACH and anchors_reach >= PIXELS_REACH:
        unit, anchors_unit, cure = "fractions of the image", "pixels", "'xyxyn', 'xyxy'"
    elif 0 < anchors_reach <= FRACTIONS_REACH and reach >= PIXELS_REACH:
        unit, anchors_unit, cure = "pixels", "fractions of the image", "'xyxy', 'xyxyn'"
    else:
        return
    fault = _fault(targets, image, "boxes", index, "be in the unit of the anchors")
    raise ValueError(
        f"{fault}; no box reaches further, like {unit}, and the anchors reach "
        f"{anchors_reach:g}, like {anchors_unit}: did you mean "
        f"convert_boxes(boxes, {cure}, image_size=(height, width))?"
    )
