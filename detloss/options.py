"""What functions check of their options. Constructors check theirs by the types in `registry`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor


def check_choice(option: str, given: object, choices: Sequence[object]) -> None:
    """Raises ValueError unless the value of an option is one of its choices."""
    if given not in choices:
        known = ", ".join(map(str, choices))
        raise ValueError(f"{option} must be one of {known}, got {given!r}")


def check_fraction(option: str, given: object) -> None:
    """Raises unless the value of an option is a number in [0, 1].

    Raises:
        TypeError: If it is no number.
        ValueError: If it is outside, or NaN.
    """
    if not 0 <= _number(option, given) <= 1:
        raise ValueError(f"{option} must be in [0, 1], got {given}")


def check_non_negative(option: str, given: object) -> None:
    """Raises unless it is a number of at least 0; see `check_fraction`."""
    if not _number(option, given) >= 0:
        raise ValueError(f"{option} must be at least 0, got {given}")


def check_positive(option: str, given: object) -> None:
    """Raises unless it is a number greater than 0; see `check_fraction`."""
    if not _number(option, given) > 0:
        raise ValueError(f"{option} must be greater than 0, got {given}")


def _number(option: str, given: object) -> Any:
    if isinstance(given, (int, float, np.integer, np.floating)):
        return given
    if isinstance(given, Tensor) and given.numel() == 1:
        return given
    raise TypeError(f"{option} must be a number, got {type(given).__name__}")
