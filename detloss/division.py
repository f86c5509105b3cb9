"""What the sum of each term is divided by: what its normalizer says, or what the caller gives."""

from collections.abc import Mapping

import torch
from torch import Tensor

from detloss.kernels.reduction import check_divisor
from detloss.normalizers import Normalizer, divisors
from detloss.tensors import sync_is_free
from detloss.terms.rows import Rows

Given = Tensor | float
"""A divisor that the caller gives: a number, or one for each image or pyramid level."""


@torch.no_grad()
def divisors_of_terms(
    rows: Mapping[str, Rows],
    normalizers: Mapping[str, Normalizer],
    given: Given | Mapping[str, Given] | None = None,
) -> dict[str, Tensor]:
    """The divisor of each term; terms that share a count are counted once.

    Args:
        rows: Term -> its rows.
        normalizers: Term -> what divides it, unless the caller gives a divisor.
        given: What the caller gives: a divisor of all terms, or term -> divisor.

    Returns:
        Term -> 0-d, (B,) where each image has its own, (L,) where each pyramid level has.

    Raises:
        TypeError: If a given divisor is no number and no tensor.
        ValueError: If a given divisor has the wrong shape, is not > 0, or is of an unknown term.
    """
    found: dict[str, Tensor] = {}
    if given is not None:
        values = given if isinstance(given, Mapping) else dict.fromkeys(rows, given)
        for name in values:
            if name not in rows:
                raise ValueError(f"normalizer must name terms, {', '.join(rows)}, got {name!r}")
            found[name] = _given_divisor(name, values[name], rows[name])
    batches = [of_term.batch for of_term in rows.values()]
    asked: dict[tuple[object, ...], tuple[Normalizer, Rows]] = {}
    asks: dict[str, tuple[object, ...]] = {}
    for name in rows:
        if name not in found:
            normalizer = normalizers[name]
            # a compiler may know no `id` of the batch, which it makes itself
            batch = [other is rows[name].batch for other in batches].index(True)
            asks[name] = _count_asked(normalizer, name, batch)
            if asks[name] not in asked:
                asked[asks[name]] = normalizer, rows[name]
    counted = dict(zip(asked, divisors(list(asked.values())), strict=True))
    return {name: found[name] if name in found else counted[asks[name]] for name in rows}


def _count_asked(normalizer: Normalizer, name: str, batch: int) -> tuple[object, ...]:
    """What tells this count from others: those that ask the same share it."""
    if normalizer.has_memory:  # it moves once a call, however many layers the call has
        return (id(normalizer),)
    return id(normalizer), batch, name if normalizer.of_term else None


def _given_divisor(name: str, value: Given, rows: Rows) -> Tensor:
    """The divisor that the caller gives: 0-d, or one for each image or pyramid level."""
    positive = rows.positive
    if not isinstance(value, Tensor):
        check_divisor(f"normalizer of {name!r}", value)
        return torch.full((), float(value), dtype=rows.dtype, device=positive.device)
    if value.dtype == torch.bool:
        raise TypeError(f"normalizer of {name!r} must be a number or a tensor, got {value.dtype}")
    expected = len(rows.level_sizes) if rows.divides_levels else rows.images
    if value.ndim and value.shape != (expected,):
        raise ValueError(
            f"normalizer of {name!r} must be a number or have shape ({expected},), "
            f"got {tuple(value.shape)}"
        )
    if sync_is_free(value) and not (value >= 0).all():  # 0 where a term has no rows
        raise ValueError(f"normalizer of {name!r} must be at least 0, got {value.tolist()}")
    return value.to(positive.device, rows.dtype)
