"""The same argument has the same text in the docstring of every loss function.

Losses copy the text of an argument from one another, and a mended copy leaves the others behind.
"""

import difflib
import inspect
import itertools
import re

import pytest

from detloss.registry import CLASSIFICATION, REGRESSION

LIKE = 0.75
"""From this likeness on, a sentence is taken for a changed copy of another one."""


def kind_of(cls):
    """What a loss's rows are, and whether it has a gradient: its arguments can only share that."""
    if hasattr(cls, "space"):
        return cls.space
    rows = "softmax" if cls.background_columns else "yes or no"
    return rows if cls.differentiable else f"{rows}, without a gradient"


def argument_texts(docstring):
    """Argument -> its sentences, of the section "Args" of a docstring."""
    section = re.search(r"^Args:\n(.*?)(?:\n\n|\Z)", inspect.cleandoc(docstring), re.M | re.S)[1]
    texts = {}
    for entry in re.split(r"\n(?=    \S)", section):
        name, text = entry.strip().split(": ", 1)
        texts[name] = re.split(r'(?<=[.]) (?=[A-Z"])', " ".join(text.split()))
    return texts


def differences(functions):
    """What differs in the texts of the same argument: all sentences that are not as they should be.

    Arguments are the same that have the same name and annotation. All their texts begin with the
    same sentence. What one of them adds is its own, or the same sentence in all that have it: a
    changed copy of another's sentence is a difference.
    """
    by_argument = {}
    for function in functions:
        parameters = inspect.signature(function).parameters
        for name, sentences in argument_texts(function.__doc__).items():
            argument = name, str(parameters[name].annotation)
            by_argument.setdefault(argument, []).append(sentences)
    for (name, _), texts in by_argument.items():
        first, added = {text[0] for text in texts}, {more for text in texts for more in text[1:]}
        alike = {
            sentence
            for pair in itertools.combinations(sorted(added), 2)
            if difflib.SequenceMatcher(None, *pair, autojunk=False).ratio() > LIKE
            for sentence in pair
        }
        if wrong := (first if len(first) > 1 else set()) | alike:
            yield f"{name}:\n" + "\n".join(f"  {sentence}" for sentence in sorted(wrong))


CLASSES = [registry[name] for registry in (CLASSIFICATION, REGRESSION) for name in registry.names()]
KINDS = sorted({kind_of(cls) for cls in CLASSES})


@pytest.mark.parametrize("kind", KINDS)
def test_an_argument_has_one_text(kind):
    found = list(differences([cls.function for cls in CLASSES if kind_of(cls) == kind]))
    assert not found, "\n".join(["write what the other losses write:", *found])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Floor of the area. Make it small.", [], id="the same"),
        pytest.param("Floor of the area.", [], id="a sentence less"),
        pytest.param(
            "Floor of the area. Make it small. Also of the IoU.", [], id="its own as well"
        ),
        pytest.param(
            "Least area. Make it small.",
            ["eps:\n  Floor of the area.\n  Least area."],
            id="begins otherwise",
        ),
        pytest.param(
            "Floor of the area. Make it smaller.",
            ["eps:\n  Make it small.\n  Make it smaller."],
            id="a changed copy",
        ),
    ],
)
def test_differences(text, expected):
    def one(pred: list, eps: float): ...

    def other(pred: list, eps: float): ...

    def another(pred: list, eps: int): ...

    one.__doc__ = f"A.\n\n    Args:\n        eps: {text}\n        pred: Boxes.\n\n    Returns:\n"
    other.__doc__ = (
        "A.\n\nArgs:\n    eps: Floor of the area. Make it\n        small.\n    pred: Boxes."
    )
    another.__doc__ = "A.\n\nArgs:\n    eps: Of another type, so another argument."
    assert list(differences([one, other, another])) == expected
