"""The command: a row for every golden file, and an exit status."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .compare import LIMIT, Comparison, compare
from .golden import Golden
from .originals import ORIGINALS

DEFAULT = Path(__file__).parents[1] / "golden"
EQUAL, DIFFERENT, FAILED, UNKNOWN = "equal", "different", "failed", "without a config"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a row for every file; 0 if all that were compared are equal, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.parity",
        description="Compares the shipped configs with the losses that they reproduce.",
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="DIR", default=[DEFAULT])
    parser.add_argument("--only", default="", metavar="NAME,...", help="files of these names")
    options = parser.parse_args(arguments)
    only = {name for name in options.only.split(",") if name}

    counts: Counter[str] = Counter()
    for folder in options.folders:
        files = sorted(folder.rglob("*.npz")) if folder.is_dir() else []
        if not files:
            print(f"{folder}: no .npz file in this folder")
            counts[FAILED] += 1
        for file in files:
            if not only or file.stem.rpartition("_seed")[0] in only:
                row, outcome = row_of(file)
                print(row, flush=True)
                counts[outcome] += 1
    if not counts:
        parser.error(f"no file is called {' or '.join(sorted(only))}")
    print(summary(counts))
    return 1 if counts[DIFFERENT] or counts[FAILED] else 0


def row_of(file: Path) -> tuple[str, str]:
    """The row of a file, and what came out."""
    try:
        golden = Golden.read(file)
    except Exception as error:  # a broken file fails in many ways
        return f"{file}: not read: {_reason(error)}", FAILED
    start = f"{golden.name:<18} seed {golden.seed:<3}"
    original = ORIGINALS.get((golden.project, golden.name))
    if original is None:
        return f"{start} no config", UNKNOWN
    try:
        found = compare(golden, original)
    except Exception as error:  # the other files are still of interest
        return f"{start} not compared, {original.config}.yaml: {_reason(error)}", FAILED
    outcome = EQUAL if found.equal else DIFFERENT
    return f"{start} {outcome:<9}  {details(found)}", outcome


def details(found: Comparison) -> str:
    """The figures of a comparison, and the config that they belong to."""
    config = f"{found.config}.yaml"
    if found.shown:
        config += f" with {_options(found.shown)}"
    if found.convention:
        config += f"; convention {_options(found.convention)}"
    terms, gradients = _figures(found.terms), _figures(found.gradients)
    matches = _matches(found.differing)
    if found.reason:
        matches += f", since {found.reason}: losses with the original's matches"
    return f"terms {terms}; gradients {gradients}; {matches}; {config}"


def summary(counts: Mapping[str, int]) -> str:
    """The last line."""
    numbers = [f"{counts[outcome]} {outcome}" for outcome in (EQUAL, DIFFERENT, FAILED, UNKNOWN)]
    return f"{sum(counts.values())} files: {', '.join(numbers)}; equal is within {LIMIT:.0e}"


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{path}: {value}" for path, value in options.items())


def _figures(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {figure:.1e}" for name, figure in figures.items())


def _matches(differing: int | None) -> str:
    if differing is None:
        return "matches given"
    return f"matches differ: {differing} anchors" if differing else "matches equal"


def _reason(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
