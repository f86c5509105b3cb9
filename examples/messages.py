"""What the examples tell the user: progress on stdout, a fault in one line on stderr."""

import argparse
import io
import sys
from typing import NoReturn

from image_sets import DetectionData
from rich.console import Console

MOST_CHANGES = 20
"""Boxes that are reported one by one; of the others only the number."""

console = Console()
errors = Console(stderr=True)


def print_anywhere() -> None:
    """Lets the output hold any name: letters that a locale does not have are escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def complain(error: Exception) -> None:
    """A mistake of the user's, in one line."""
    line = " ".join(str(error).splitlines())
    errors.print(line, style="red", soft_wrap=True, markup=False, highlight=False)


class Parser(argparse.ArgumentParser):
    """Tells a mistake in an option as any other, in one line without the usage."""

    def error(self, message: str) -> NoReturn:
        complain(ValueError(message))
        sys.exit(2)


def report(data: DetectionData, policy: str) -> None:
    """How the data were read, and what was wrong with their boxes."""
    lines = [*data.notes, *data.changes[:MOST_CHANGES]]
    if data.changes:
        unsaid = len(data.changes) - MOST_CHANGES
        lines += [f"... and {unsaid:,} more"] if unsaid > 0 else []
        boxes = "box" if len(data.changes) == 1 else "boxes"
        lines += [f"--policy {policy}: {len(data.changes):,} {boxes} with a fault"]
    for line in lines:
        console.print(line, style="yellow", soft_wrap=True, markup=False, highlight=False)
