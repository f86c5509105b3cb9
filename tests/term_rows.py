"""Rows of a term as numbers, for tests of what divides them."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from detloss.normalizers import Normalizer
from detloss.registry import NORMALIZERS

OPTIONS = {"constant": {"value": 20.0}}
"""What a normalizer needs."""
DIVIDING = [name for name in NORMALIZERS.names() if name != "supplied"]
"""Every normalizer that has a divisor of its own."""


@dataclass
class NumberedRows:
    """`detloss.normalizers.TermRows` of B images with A anchors each; see `term_rows`."""

    positive: Tensor
    counted: Tensor
    ground_truths: Tensor
    pairs: Tensor
    rows: Tensor
    columns: int
    target_scores: Tensor
    row_weights: Tensor
    sizes: Sequence[int] | None

    @property
    def images(self) -> int:
        return len(self.positive)

    @property
    def level_sizes(self) -> Sequence[int]:
        if self.sizes is None:
            raise ValueError("level_sizes must be given where a part asks for levels, got None")
        return self.sizes


def term_rows(
    positive: Sequence[int] | Sequence[Sequence[int]],
    *,
    anchors: int = 10,
    columns: int = 1,
    level_sizes: Sequence[int] | None = None,
    **counts: Any,
) -> NumberedRows:
    """Rows of which the tests say only what they count.

    Args:
        positive: How many of the first anchors of each image are positive, or (B, A) 0 or 1.
        anchors: A, where `positive` is a number an image.
        columns: Values in a row.
        level_sizes: Anchors of each pyramid level.
        counts: Other attributes, as nested lists or tensors. By default every anchor counts, every
            positive is a row that weighs 1, and its ground truth has no other.
    """
    given = torch.as_tensor(positive)
    if given.ndim == 1:
        given = torch.arange(anchors) < given[:, None]
    given = given.bool()
    values = {
        "positive": given,
        "counted": torch.ones_like(given),
        "ground_truths": given.sum(1),
        "pairs": given,
        "rows": given,
        "target_scores": given.float(),
        "row_weights": given.float(),
    }
    unknown = counts.keys() - values.keys()
    assert not unknown, unknown
    values |= {name: torch.as_tensor(value) for name, value in counts.items()}
    return NumberedRows(**values, columns=columns, sizes=level_sizes)


def random_rows(images: int, *, anchors: int = 8, seed: int = 0) -> NumberedRows:
    """Rows in which all counts differ; an image may have no positives."""
    generator = torch.Generator().manual_seed(seed)
    chance = torch.rand(images, 1, generator=generator) - 0.3
    shape = (images, anchors)
    positive = torch.rand(shape, generator=generator) < chance
    return term_rows(
        positive,
        columns=3,
        level_sizes=[anchors // 2, anchors - anchors // 2],
        counted=positive | (torch.rand(shape, generator=generator) < 0.7),
        ground_truths=torch.randint(0, 5, (images,), generator=generator),
        pairs=positive * torch.randint(1, 3, shape, generator=generator),
        rows=positive * torch.randint(1, 3, shape, generator=generator),
        target_scores=positive * torch.rand(shape, generator=generator),
        row_weights=positive * torch.rand(shape, generator=generator),
    )


def images_of(rows: NumberedRows, part: slice) -> NumberedRows:
    """The rows of some of the images."""
    values = {field.name: getattr(rows, field.name) for field in fields(rows)}
    return NumberedRows(**{k: v[part] if isinstance(v, Tensor) else v for k, v in values.items()})


def divided(sums: Tensor, divisor: Tensor, normalizer: Normalizer, rows: NumberedRows) -> Tensor:
    """The loss of a batch whose anchors have the losses `sums` (B, A); 0 over 0 is 0."""
    if normalizer.per == "image":
        assert divisor.shape == (rows.images,)
        sums = sums.sum(1)
    elif normalizer.per == "level":
        assert divisor.shape == (len(rows.level_sizes),)
        sums = torch.stack([one.sum() for one in torch.split(sums, list(rows.level_sizes), 1)])
    else:
        assert divisor.shape == ()
        sums = sums.sum()
    return torch.where(divisor == 0, 0, sums.double() / divisor.double()).sum()


def normalized(normalizer: Normalizer, positives: Sequence[int], sums: Sequence[float]) -> float:
    """The loss of a batch, of what the anchors of each image lose together."""
    rows = term_rows(positives, anchors=max(positives) + 1)
    losses = torch.zeros(rows.positive.shape, dtype=torch.float64)
    losses[:, 0] = torch.tensor(sums, dtype=torch.float64)
    return divided(losses, normalizer(rows), normalizer, rows).item()


def on_ranks(normalizer: Normalizer, ranks: Sequence[NumberedRows]) -> list[Tensor]:
    """The divisor of each rank, as if each were a process with a normalizer of its own."""
    total = sum(normalizer.local(rows) for rows in ranks)
    return [copy.deepcopy(normalizer).divisor(total, rows, len(ranks)) for rows in ranks]
