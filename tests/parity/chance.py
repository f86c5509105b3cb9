"""What originals leave to chance: the order in which a sort finds equal values.

Such an original may match anchors otherwise, and be right: but only those whose values are equal.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

import detloss

ROUNDING = 1e-5
"""Two numbers count as equal up to this relative difference."""


@dataclass(frozen=True)
class Call:
    """What a criterion is called with.

    Attributes:
        criterion: The criterion.
        predictions: Its predictions.
        targets: The ground truths of each image.
        anchors: (A, 4).
    """

    criterion: detloss.DetectorLoss
    predictions: Mapping[str, Tensor]
    targets: Sequence[Mapping[str, Tensor]]
    anchors: Tensor


@dataclass(frozen=True)
class Chance:
    """What an original leaves to chance.

    Attributes:
        reason: In words.
        anchors: Call -> (B, A) bool, the anchors whose matches the original leaves to chance.
    """

    reason: str
    anchors: Callable[[Call], Tensor]


def _not_aligned(call: Call) -> Tensor:
    """The anchors inside an object with alignment 0, where it has fewer aligned ones than it takes.

    The object is matched alone, with a topk of all anchors: its positives are the aligned ones.
    With alpha and beta 0 every anchor inside has alignment 1, so they are all inside.
    """
    topk = call.criterion.config()["matcher"]["topk"]
    takes_aligned, takes_inside = _taking_all(call), _taking_all(call, alpha=0.0, beta=0.0)
    found = torch.zeros(len(call.targets), len(call.anchors), dtype=torch.bool)
    for place in range(max(len(target["boxes"]) for target in call.targets)):
        alone = [
            {name: value[place : place + 1] for name, value in target.items()}
            for target in call.targets
        ]
        aligned, inside = (
            _positives(criterion, call, alone) for criterion in (takes_aligned, takes_inside)
        )
        found |= inside & ~aligned & (aligned.sum(1, keepdim=True) < topk)
    return found


def _taking_all(call: Call, **options: float) -> detloss.DetectorLoss:
    """The criterion with a matcher whose objects take all anchors, with these options."""
    config = call.criterion.config()
    config["matcher"] |= {"topk": len(call.anchors), "topk_kept": None, **options}
    criterion = detloss.build(config)
    assert isinstance(criterion, detloss.DetectorLoss)
    return criterion


def _positives(
    criterion: detloss.DetectorLoss, call: Call, targets: Sequence[Mapping[str, Tensor]]
) -> Tensor:
    """(B, A) the positives of that criterion with these targets."""
    found = criterion.match(targets, anchors=call.anchors, predictions=call.predictions)
    return torch.stack([matches.positive for matches in found])


def _equally_near(call: Call) -> Tensor:
    """The anchors that are as near an object as another one, and among its nearest.

    By themselves, or by their predictions.
    """
    topk = call.criterion.config()["matcher"]["topk"]
    regression = call.predictions["box_regression"].detach()
    predicted = call.criterion.coder.decode(regression, call.anchors.expand_as(regression))
    found = []
    for boxes, target in zip(predicted, call.targets, strict=True):
        truths = _centre_and_size(target["boxes"])
        tied = torch.zeros(len(boxes), dtype=torch.bool)
        for some in (call.anchors, boxes):
            distance, anchor = torch.cdist(truths, _centre_and_size(some), p=1).sort()
            last = distance[:, topk - 1 : topk] * (1 + ROUNDING)
            equal = distance.diff() <= ROUNDING * distance[:, 1:]
            equal = (pad(equal, (1, 0)) | pad(equal, (0, 1))) & (distance <= last)
            tied[anchor[equal]] = True
        found.append(tied)
    return torch.stack(found)


def _centre_and_size(boxes: Tensor) -> Tensor:
    return detloss.boxes.convert_boxes(boxes, "xyxy", "cxcywh")


NOT_ALIGNED = Chance(
    "an object with fewer aligned anchors than topk takes others by the order of a sort",
    _not_aligned,
)
EQUALLY_NEAR = Chance(
    "of anchors that are equally near an object it takes some by the order of a sort",
    _equally_near,
)
