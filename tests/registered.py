"""What the registries hold, for tests over all of it."""

from detloss.registry import CLASSIFICATION, REGRESSION

LOSSES = [("classification", n) for n in CLASSIFICATION.names() if CLASSIFICATION[n].differentiable]
LOSSES += [("box", n) for n in REGRESSION.names()]
"""Section and name of every loss with a gradient."""


def space_of(section: str, name: str) -> str:
    """That of a box loss; what a classification loss sees are "classes"."""
    return REGRESSION[name].space if section == "box" else "classes"
