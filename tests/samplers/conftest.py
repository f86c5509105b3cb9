"""Matches in short for the samplers' tests."""

import pytest
import torch

from detloss.matchers import Matches


@pytest.fixture(scope="session")
def matches_of():
    """Matches from a word: P positive, N negative, X ignored; each positive has its own truth."""

    def build(word):
        positive = torch.tensor([letter == "P" for letter in word], dtype=torch.bool)
        ignored = torch.tensor([letter == "X" for letter in word], dtype=torch.bool)
        return Matches(torch.where(positive, positive.cumsum(0), 0), positive, ignored)

    return build


@pytest.fixture(scope="session")
def word_of():
    """The word of matches, so that a test reads as before -> after."""

    def read(matches):
        assert not (matches.positive & matches.ignored).any()
        rows = zip(matches.positive.tolist(), matches.ignored.tolist(), strict=True)
        return "".join("P" if positive else "X" if ignored else "N" for positive, ignored in rows)

    return read
