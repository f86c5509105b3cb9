"""What the registries hold, for tests over all of it."""

from detloss.registry import CLASSIFICATION, REGRESSION

LOSSES = [("classification", n) for n in CLASSIFICATION.names() if n != "zero_one"] + [
    ("box", n) for n in REGRESSION.names()
]
"""Section and name of every loss with a gradient; zero_one is a metric."""
