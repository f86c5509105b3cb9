"""How near a positive lies to the centre of its object."""

from typing import ClassVar

from detloss.registry import TERMS
from detloss.terms.base import Over
from detloss.terms.logits import ScoreTerm


@TERMS.register("centerness")
class CenternessTerm(ScoreTerm):
    """Loss of "centerness": the network predicts the centerness of each positive.

    At test time it lowers the score of boxes that are predicted far from the centre.

    Args: See `ScoreTerm`.

    Example:
        >>> from detloss.classification import SigmoidCrossEntropy
        >>> CenternessTerm(SigmoidCrossEntropy()).over
        'positives'

    Reference:
        Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019,
        arXiv:1904.01355, section 3.3.
    """

    default_reads: ClassVar[str] = "centerness"
    default_over: ClassVar[Over] = "positives"
    default_label: ClassVar[str] = "centerness"
