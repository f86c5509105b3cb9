"""Debug validation: looks at values, which the hot path never does, and names the first bad one."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def validate_targets(targets: Sequence[Mapping[str, Tensor]], classes: int) -> None:
    """Raises at the first label outside 0..C-1 and the first box that cannot be learned.

    Labels and boxes of ignore regions are not looked at, but for finiteness.

    Raises:
        ValueError: Naming image, index and value.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 5, 5]])
        >>> validate_targets([{"boxes": boxes, "labels": torch.tensor([3])}], classes=3)
        Traceback (most recent call last):
        ValueError: targets[0]['labels'][0] must be in 0..2, got 3
    """
    for image, target in enumerate(targets):
        boxes, labels = target["boxes"], target["labels"]
        learned = ~target.get("ignore", torch.zeros_like(labels, dtype=torch.bool))
        outside = learned & ((labels < 0) | (labels >= classes))
        inverted = learned & (boxes[:, 2:] < boxes[:, :2]).any(1)
        infinite = ~boxes.isfinite().all(1)
        for key, bad, rule in (
            ("labels", outside, f"be in 0..{classes - 1}"),
            ("boxes", infinite, "be finite"),
            ("boxes", inverted, "have x2 >= x1 and y2 >= y1"),
        ):
            if bad.any():
                index = int(bad.nonzero()[0])
                value = target[key][index].tolist()
                raise ValueError(f"targets[{image}][{key!r}][{index}] must {rule}, got {value}")


def validate_predictions(predictions: Mapping[str, Tensor]) -> None:
    """Raises at the first prediction that is not finite.

    Args:
        predictions: Term -> (B, A, K), what the term is computed from.

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
            image, anchor, column = bad.nonzero()[0].tolist()
            raise ValueError(
                f"term {term!r}, image {image}: prediction of anchor {anchor}, column {column} "
                f"must be finite, got {values[image, anchor, column].item()}"
            )
