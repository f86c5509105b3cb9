"""Docstrings: what programs read in them is there, and the same argument has the same text in all.

Losses copy the text of an argument from one another, and a mended copy leaves the others behind.
"""

import difflib
import inspect
import itertools
import re

import pytest

from detloss.docstrings import Paper, cited_in, papers_of, range_of, section
from detloss.registry import CLASSIFICATION, REGRESSION, options_of

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

    Arguments are the same that have the same name, annotation and range. All their texts begin with
    the same sentence. What one of them adds is its own, or the same sentence in all that have it: a
    changed copy of another's sentence is a difference.
    """
    by_argument = {}
    for function in functions:
        parameters = inspect.signature(function).parameters
        for name, sentences in argument_texts(function.__doc__).items():
            allowed = RANGES.get(function, {}).get(name)
            argument = name, str(parameters[name].annotation), str(allowed)
            by_argument.setdefault(argument, []).append(sentences)
    for (name, *_), texts in by_argument.items():
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
RANGES = {
    cls.function: {name: option.annotation for name, option in options_of(cls).items()}
    for cls in CLASSES
}
"""What the constructor of the class says of each option."""
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


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_loss_states_its_range_and_its_paper(cls):
    name = cls.function.__name__
    assert range_of(cls.function), (
        f"begin the section `Returns:` in the docstring of {name} with the range, as "
        "`Loss in [0, 2]` or `Loss >= 0`"
    )
    assert papers_of(cls), (
        f'write in the section `Reference:` in the docstring of {name}: authors, "title", where '
        "and the year, arXiv:number"
    )


@pytest.mark.parametrize(
    ("reference", "papers"),
    [
        pytest.param(
            'Zheng et al., "Distance-IoU Loss", AAAI 2020, arXiv:1911.08287.',
            [Paper("Zheng et al.", "2020", "1911.08287")],
            id="authors, title, year, preprint",
        ),
        pytest.param(
            'Lyu et al., "RTMDet", arXiv:2212.07784, section 3.3.',
            [Paper("Lyu et al.", "2022", "2212.07784")],
            id="the year of a preprint",
        ),
        pytest.param(
            'Ge et al., "YOLOX: Exceeding in 2019", arXiv:2007.08430.',
            [Paper("Ge et al.", "2020", "2007.08430")],
            id="no year in a title or a number",
        ),
        pytest.param(
            'Huber, "Robust; or not: A Location", Annals 35, 1964.',
            [Paper("Huber", "1964")],
            id="a title with punctuation, no preprint",
        ),
        pytest.param(
            'Ma and Xu, "A", 2023; smoothing: Li, Xu and He, "B" (C), CVPR 2016; as in their code.',
            [Paper("Ma and Xu", "2023"), Paper("Li, Xu and He", "2016")],
            id="several, one with what it is of, and a remark",
        ),
        pytest.param('torchvision, ``compute_loss``. "linear" is ours.', [], id="no paper"),
    ],
)
def test_papers_worked_by_hand(reference, papers):
    assert cited_in(reference) == papers


@pytest.mark.parametrize(
    ("paper", "expected"),
    [
        (Paper("Rezatofighi et al.", "2019"), "Rezatofighi 2019"),
        (Paper("Tychsen-Smith and Petersson", "2018"), "Tychsen-Smith 2018"),
        (Paper("Zhang, Xu and Zhang", "2023"), "Zhang 2023"),
        (Paper("Huber", "1964"), "Huber 1964"),
    ],
)
def test_a_paper_in_short(paper, expected):
    assert paper.short() == expected


def returning(text):
    def loss(): ...

    loss.__doc__ = f"A loss.\n\n    Returns:\n        {text}\n\n    Raises:\n        TypeError: No."
    return loss


@pytest.mark.parametrize(
    ("returns", "options", "expected"),
    [
        pytest.param("Loss in [0, 2.5): 0 for identical boxes.", [], "[0, 2.5)", id="half open"),
        pytest.param("Loss >= 0, in [0, 3] for boxes.", [], ">= 0", id="without an upper end"),
        pytest.param("Loss, >= 0 by the paper's convention.", [], ">= 0", id="by a convention"),
        pytest.param('Loss in [0, 1], for "log" in [0, 9].', ["iou"], "[0, 1]", id="another word"),
        pytest.param('Loss in [0, 1], for "log" in [0, 9].', [1e-7, "log"], "[0, 9]", id="a word"),
        pytest.param("0 or 1 a row.", [], "", id="not stated"),
    ],
)
def test_ranges_worked_by_hand(returns, options, expected):
    assert range_of(returning(returns), options) == expected


def test_a_section_is_one_line_up_to_the_next():
    assert section(returning("Loss >= 0,\n        finite."), "Returns") == "Loss >= 0, finite."
    assert section(returning("Loss >= 0."), "Reference") == ""
    assert section(lambda: None, "Returns") == ""
