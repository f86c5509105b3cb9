"""Whether an anchor is assigned to an object at all."""

from typing import ClassVar

from detloss.registry import TERMS
from detloss.terms.base import Over
from detloss.terms.logits import ScoreTerm


@TERMS.register("objectness")
class ObjectnessTerm(ScoreTerm):
    """Loss of "objectness": yes for a positive, no for background.

    Args: See `ScoreTerm`.

    Example:
        >>> from detloss.classification import SigmoidCrossEntropy
        >>> ObjectnessTerm(SigmoidCrossEntropy()).over
        'all'

    Reference:
        Redmon et al., "You Only Look Once", CVPR 2016, arXiv:1506.02640, section 2.2; Ren et al.,
        "Faster R-CNN", NeurIPS 2015, arXiv:1506.01497, equation 1.
    """

    default_reads: ClassVar[str] = "objectness"
    default_over: ClassVar[Over] = "all"
    default_label: ClassVar[str] = "one"
