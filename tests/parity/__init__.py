"""Parity: the shipped configs against the numbers of the losses that they reproduce.

    python -m tests.parity [DIR ...] [--only NAME,...]

A golden file holds what an original loss was fed and what it returned. `golden` reads one,
`originals` says how it is fed to a criterion, `compare` does that and measures the differences.
"""

from .compare import LIMIT, Comparison, compare
from .golden import Golden
from .originals import ORIGINALS, Original
from .report import main

__all__ = ["LIMIT", "ORIGINALS", "Comparison", "Golden", "Original", "compare", "main"]
