"""Box-regression losses, one technique a file: on boxes, on deltas, or on bins of distances."""

from detloss.regression.base import BoxLoss
from detloss.regression.ciou import CIoULoss, ciou_loss
from detloss.regression.diou import DIoULoss, diou_loss
from detloss.regression.distribution_focal import (
    DistributionFocalLoss,
    distribution_focal_loss,
)
from detloss.regression.giou import GIoULoss, giou_loss
from detloss.regression.iou import IoULoss, iou_loss
from detloss.regression.l1 import L1Loss, l1_loss
from detloss.regression.l2 import L2Loss, l2_loss
from detloss.regression.smooth_l1 import SmoothL1Loss, beta_from_sigma, smooth_l1_loss
from detloss.regression.yolo import YOLOLoss, yolo_loss

__all__ = [
    "BoxLoss",
    "CIoULoss",
    "DIoULoss",
    "DistributionFocalLoss",
    "GIoULoss",
    "IoULoss",
    "L1Loss",
    "L2Loss",
    "SmoothL1Loss",
    "YOLOLoss",
    "beta_from_sigma",
    "ciou_loss",
    "diou_loss",
    "distribution_focal_loss",
    "giou_loss",
    "iou_loss",
    "l1_loss",
    "l2_loss",
    "smooth_l1_loss",
    "yolo_loss",
]
