"""What a program reads in the docstring of a technique: its papers, and the range of a loss.

Both are stated there once: a table or a test that needs them asks here.
"""

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from detloss.registry import Part


class Paper(NamedTuple):
    """A paper, as a section "Reference" cites it.

    Attributes:
        authors: Such as "Zhang, Xu and Zhang", or "Zheng et al.".
        year: Of its publication, or else of its preprint.
        arxiv: The number of its preprint, "" where none is cited.
    """

    authors: str
    year: str
    arxiv: str = ""

    def short(self) -> str:
        """The first author and the year.

        Example:
            >>> Paper("Zhang, Xu and Zhang", "2023").short()
            'Zhang 2023'
        """
        first = re.split(r",| and | et al", self.authors)[0]
        return f"{first} {self.year}"


def papers_of(part: type[Part]) -> list[Paper]:
    """What a part cites in its section "Reference", that of its function if it is a loss.

    Example:
        >>> from detloss.regression import GIoULoss
        >>> papers_of(GIoULoss)
        [Paper(authors='Rezatofighi et al.', year='2019', arxiv='1902.09630')]
    """
    return cited_in(section(getattr(part, "function", part), "Reference"))


def cited_in(reference: str) -> list[Paper]:
    """The papers in the text of a section "Reference".

    Papers are separated by semicolons. One is its authors, its title in quotation marks, and then,
    among other words, a year or an arXiv number; anything else is a remark.

    Example:
        >>> cited_in('smoothing: Szegedy et al., "Rethinking", CVPR 2016; as in their code')
        [Paper(authors='Szegedy et al.', year='2016', arxiv='')]
    """
    found = []
    for entry in re.split(r';(?=(?:[^"]*"[^"]*")*[^"]*$)', reference):
        cited = re.match(r'(?:[\w ]+: )?([^":]+), "[^"]+"(.*)', entry.strip())
        if cited is None:
            continue
        authors, rest = cited.groups()
        preprint = re.search(r"arXiv:((\d\d)\d\d\.\d+)", rest)
        year = re.search(r"\b(?:19|20)\d\d\b(?!\.\d)", rest)
        if year:
            found.append(Paper(authors, year[0], preprint[1] if preprint else ""))
        elif preprint:
            found.append(Paper(authors, f"20{preprint[2]}", preprint[1]))
    return found


def range_of(function: Callable[..., Any], options: Iterable[object] = ()) -> str:
    """The range of a loss, as its section "Returns" begins with it; "" where it does not.

    Args:
        function: The loss.
        options: The values of its options: where one is a word, its range may be another.

    Example:
        >>> from detloss.regression import iou_loss, l1_loss
        >>> range_of(l1_loss), range_of(iou_loss), range_of(iou_loss, ["log"])
        ('>= 0', '[0, 1]', '[0, -ln eps]')
    """
    returns, interval = section(function, "Returns"), r"\[0, [^])]+[])]"
    of_words = dict(re.findall(rf'for "(\w+)" in ({interval})', returns))
    words = [option for option in options if isinstance(option, str) and option in of_words]
    stated = re.match(rf"Loss,? (?:in )?({interval}|>= 0)", returns)
    return of_words[words[0]] if words else stated[1] if stated else ""


def section(documented: object, title: str) -> str:
    """The text of a section of a docstring in one line; "" where there is none."""
    docstring = inspect.getdoc(documented) or ""
    found = re.search(rf"^{title}:\n((?: .*(?:\n|$)|\n)+)", docstring, flags=re.MULTILINE)
    return " ".join(found[1].split()) if found else ""
