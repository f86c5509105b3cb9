"""Matches in short, for the tests of matchers."""

from detloss.matchers import Matches

N, X = "negative", "ignored"


def said(matches: Matches) -> list[int | str]:
    """The ground truth of each anchor, "negative" or "ignored"."""
    one_of_three = matches.positive.int() + matches.ignored.int() + matches.negative.int()
    assert (one_of_three == 1).all()
    rows = zip(
        matches.target_index.tolist(),
        matches.positive.tolist(),
        matches.ignored.tolist(),
        strict=True,
    )
    return [index if positive else X if ignored else N for index, positive, ignored in rows]


def said_by_original(matched: list[int]) -> list[int | str]:
    """The same of what golden files hold: -1 background, -2 ignored, else the ground truth."""
    return [{-1: N, -2: X}.get(index, index) for index in matched]
