"""Code that needs a process of its own, where nothing was allocated before."""

import subprocess
import sys

import pytest

# no other system tells a process its peak there; the benchmark leaves its column empty elsewhere
measures_memory = pytest.mark.skipif(
    not sys.platform.startswith("linux"),
    reason="resident_peak reads /proc/self/status and clear_refs, which only Linux has",
)


def printed_by(code: str, *arguments: str) -> float:
    """The number that `code` prints when run with `arguments` in a new Python."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)
