"""How well the predicted box of a positive fits."""

from typing import ClassVar

from detloss.registry import TERMS
from detloss.terms.base import Over
from detloss.terms.logits import ScoreTerm


@TERMS.register("iou_score")
class IoUScoreTerm(ScoreTerm):
    """Loss of "iou_score": the network predicts the IoU of its own box with the ground truth.

    Args: See `ScoreTerm`.

    Example:
        >>> from detloss.classification import SigmoidCrossEntropy
        >>> IoUScoreTerm(SigmoidCrossEntropy()).over
        'positives'

    Reference:
        Wu et al., "IoU-aware Single-stage Object Detector", 2019, arXiv:1912.05992.
    """

    default_reads: ClassVar[str] = "iou_score"
    default_over: ClassVar[Over] = "positives"
    default_label: ClassVar[str] = "iou"
