"""Terms: one loss of one prediction: which rows, which target, which weight, what divides it."""

from detloss.terms.base import Term
from detloss.terms.box import BoxTerm
from detloss.terms.centerness import CenternessTerm
from detloss.terms.classification import ClassificationTerm
from detloss.terms.iou_score import IoUScoreTerm
from detloss.terms.logits import LogitTerm, ScoreTerm
from detloss.terms.objectness import ObjectnessTerm
from detloss.terms.rows import Rows

__all__ = [
    "BoxTerm",
    "CenternessTerm",
    "ClassificationTerm",
    "IoUScoreTerm",
    "LogitTerm",
    "ObjectnessTerm",
    "Rows",
    "ScoreTerm",
    "Term",
]
