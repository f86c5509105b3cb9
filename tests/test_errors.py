"""The errors of docs/errors.md: each is what one gets, and each cure cures."""

import pytest
from errors import BASE, CASES, PAGE, cases_of, page, without_names

import detloss
from detloss.registry import REGRESSION, TERMS

EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)


def test_there_are_twenty():
    assert len({case.title for case in CASES}) == len(CASES) == 20


@EVERY_CASE
def test_the_page_shows_what_one_gets(case):
    assert case.section() in PAGE.read_text(), "run python -m tests.errors"


def test_the_page_shows_nothing_else():
    assert PAGE.read_text() == page(), "run python -m tests.errors"


@EVERY_CASE
def test_the_cure_cures(case):
    case.run(case.mended)


@EVERY_CASE
def test_a_cure_is_one_or_two_sentences(case):
    assert case.cure.endswith(".")
    assert case.cure.replace("\n", " ").count(". ") <= 1


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (f"accepted: {', '.join(REGRESSION.names())}; did", "accepted: ...; did"),
        (f"accepted: matcher, {', '.join(TERMS.names())}\nmore", "accepted: matcher, ...\nmore"),
        (f"losses on boxes: {', '.join(REGRESSION.names()[:2])}", "losses on boxes: ..."),
        ("matchers with scores: none", "matchers with scores: ..."),
        ("coder delta has boxes, deltas", "coder delta has boxes, deltas"),
        ("got {'type': 'delta'}", "got {'type': 'delta'}"),
    ],
)
def test_a_new_technique_does_not_make_the_page_stale(message, shown):
    assert without_names(message) == shown


@pytest.mark.parametrize("language", ["python", "yaml"])
def test_a_case_without_a_mistake_is_told(language):
    (case,) = cases_of(f"## Nothing\n# {BASE[:7]}\n--\nNone.\n--\n#", language)
    with pytest.raises(AssertionError, match="Nothing: no error"):
        case.message()


def test_the_config_that_the_lines_go_into_is_a_good_one(tmp_path):
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    assert list(detloss.load_config(path).terms) == ["classification", "box"]
