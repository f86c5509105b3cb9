"""Filtering by score: no background that is known with certainty."""

from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor

from detloss.registry import SAMPLERS
from detloss.samplers.base import Sampler


@SAMPLERS.register("score")
class ScoreSampler(Sampler):
    """Keeps every positive, and the negatives whose score is not below a threshold.

    ``score = 1 - exp(-loss)``: how likely an anchor is no background, in the prediction, where the
    loss is a cross-entropy. Of a softmax it is ``1 - p`` with p background's probability, of one
    logit its sigmoid, and of several yes-or-no classes how likely any of them is,
    ``1 - prod_c (1 - p_c)``. A focal loss is smaller than the cross-entropy, and so is its score.

    Unlike a ratio of negatives to positives, a threshold keeps more of them in an image on which
    the detector errs, whether there are objects or not, and none where it is sure.

    Args:
        threshold: Least score of a negative that is kept, in [0, 1).

    Example:
        >>> from detloss.matchers import Matches
        >>> matches = Matches(torch.zeros(3, dtype=torch.long), *torch.zeros(2, 3).bool())
        >>> loss = -torch.tensor([0.5, 0.98, 0.999]).log()  # from background's probability
        >>> ScoreSampler(threshold=0.01)(matches, loss).negative
        tensor([ True,  True, False])

    Reference:
        Zhang et al., "Single-Shot Refinement Neural Network for Object Detection" (RefineDet), CVPR
        2018, arXiv:1711.06897, "Negative Anchor Filtering": background is left out where its
        probability is above 0.99.
    """

    needs_class_loss: ClassVar[bool] = True

    def __init__(self, *, threshold: Annotated[float, Interval(ge=0, lt=1)] = 0.01) -> None:
        super().__init__()
        self.threshold = threshold

    def left_out(self, positive: Tensor, negative: Tensor, class_loss: Tensor | None) -> Tensor:
        """The easy negatives; see `Sampler.left_out`."""
        assert class_loss is not None
        return negative & (-torch.expm1(-class_loss) < self.threshold)
