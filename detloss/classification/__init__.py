"""Classification losses, one technique a file: yes-or-no for each class, or one softmax."""

from detloss.classification.balanced import BalancedCrossEntropy, balanced_cross_entropy
from detloss.classification.base import ClassificationLoss
from detloss.classification.hinge import HingeLoss, hinge_loss
from detloss.classification.mean_squared_error import MeanSquaredError, mean_squared_error
from detloss.classification.multilabel_softmax import (
    MultilabelSoftmaxCrossEntropy,
    multilabel_softmax_cross_entropy,
)
from detloss.classification.quality_focal import QualityFocalLoss, quality_focal_loss
from detloss.classification.sigmoid_cross_entropy import (
    SigmoidCrossEntropy,
    sigmoid_cross_entropy,
)
from detloss.classification.sigmoid_focal import SigmoidFocalLoss, prior_bias, sigmoid_focal_loss
from detloss.classification.soft_focal import SoftFocalLoss, soft_focal_loss
from detloss.classification.softmax_cross_entropy import (
    SoftmaxCrossEntropy,
    softmax_cross_entropy,
)
from detloss.classification.softmax_focal import SoftmaxFocalLoss, softmax_focal_loss
from detloss.classification.varifocal import VarifocalLoss, varifocal_loss
from detloss.classification.zero_one import ZeroOneLoss, zero_one_loss

__all__ = [
    "BalancedCrossEntropy",
    "ClassificationLoss",
    "HingeLoss",
    "MeanSquaredError",
    "MultilabelSoftmaxCrossEntropy",
    "QualityFocalLoss",
    "SigmoidCrossEntropy",
    "SigmoidFocalLoss",
    "SoftFocalLoss",
    "SoftmaxCrossEntropy",
    "SoftmaxFocalLoss",
    "VarifocalLoss",
    "ZeroOneLoss",
    "balanced_cross_entropy",
    "hinge_loss",
    "mean_squared_error",
    "multilabel_softmax_cross_entropy",
    "prior_bias",
    "quality_focal_loss",
    "sigmoid_cross_entropy",
    "sigmoid_focal_loss",
    "soft_focal_loss",
    "softmax_cross_entropy",
    "softmax_focal_loss",
    "varifocal_loss",
    "zero_one_loss",
]
