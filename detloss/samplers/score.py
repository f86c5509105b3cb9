"""Filtering by score: no background that is known with certainty."""

from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor

from detloss.matchers import Matches
from detloss.registry import SAMPLERS
from detloss.samplers.base import Sampler, leave_out
from detloss.samplers.ohem import loss_of_anchors


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

    @torch.no_grad()
    def forward(self, matches: Matches, class_loss: Tensor | None = None) -> Matches:
        """The matches with the easy negatives ignored; see `Sampler.forward`.

        Raises:
            ValueError: If the loss is missing or has another shape than (A,).
        """
        score = -torch.expm1(-loss_of_anchors(matches, class_loss))
        return leave_out(matches, matches.negative & (score < self.threshold))
