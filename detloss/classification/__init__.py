"""Classification losses, one technique a file: yes-or-no for each class, or one softmax."""

from detloss.classification.asymmetric import AsymmetricLoss, asymmetric_loss
from detloss.classification.balanced import BalancedCrossEntropy, balanced_cross_entropy
from detloss.classification.base import ClassificationLoss
from detloss.classification.counts import effective_number_weights
from detloss.classification.focal_star import FocalStarLoss, focal_star_loss
from detloss.classification.gaussian_focal import GaussianFocalLoss, gaussian_focal_loss
from detloss.classification.hinge import HingeLoss, hinge_loss
from detloss.classification.ia_bce import IABCELoss, ia_bce_loss
from detloss.classification.logit_adjusted import LogitAdjustedLoss, logit_adjusted_loss
from detloss.classification.matchability_aware import (
    MatchabilityAwareLoss,
    matchability_aware_loss,
)
from detloss.classification.mean_squared_error import MeanSquaredError, mean_squared_error
from detloss.classification.multilabel_softmax import (
    MultilabelSoftmaxCrossEntropy,
    multilabel_softmax_cross_entropy,
)
from detloss.classification.poly1 import Poly1Loss, poly1_loss
from detloss.classification.poly1_focal import Poly1FocalLoss, poly1_focal_loss
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
    "AsymmetricLoss",
    "BalancedCrossEntropy",
    "ClassificationLoss",
    "FocalStarLoss",
    "GaussianFocalLoss",
    "HingeLoss",
    "IABCELoss",
    "LogitAdjustedLoss",
    "MatchabilityAwareLoss",
    "MeanSquaredError",
    "MultilabelSoftmaxCrossEntropy",
    "Poly1FocalLoss",
    "Poly1Loss",
    "QualityFocalLoss",
    "SigmoidCrossEntropy",
    "SigmoidFocalLoss",
    "SoftFocalLoss",
    "SoftmaxCrossEntropy",
    "SoftmaxFocalLoss",
    "VarifocalLoss",
    "ZeroOneLoss",
    "asymmetric_loss",
    "balanced_cross_entropy",
    "effective_number_weights",
    "focal_star_loss",
    "gaussian_focal_loss",
    "hinge_loss",
    "ia_bce_loss",
    "logit_adjusted_loss",
    "matchability_aware_loss",
    "mean_squared_error",
    "multilabel_softmax_cross_entropy",
    "poly1_focal_loss",
    "poly1_loss",
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
