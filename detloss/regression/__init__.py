"""Box-regression losses, one technique a file: on boxes, on deltas, or on bins of distances."""

from detloss.regression.alpha_iou import AlphaIoULoss, alpha_iou_loss
from detloss.regression.balanced_l1 import BalancedL1Loss, balanced_l1_loss
from detloss.regression.base import BoxLoss
from detloss.regression.bounded_iou import BoundedIoULoss, bounded_iou_loss
from detloss.regression.center import CenterLoss, center_loss
from detloss.regression.ciou import CIoULoss, ciou_loss
from detloss.regression.composed_iou import ComposedIoULoss, composed_iou_loss
from detloss.regression.diou import DIoULoss, diou_loss
from detloss.regression.distribution_focal import (
    DistributionFocalLoss,
    distribution_focal_loss,
)
from detloss.regression.eiou import EIoULoss, eiou_loss
from detloss.regression.extended_iou import ExtendedIoULoss, extended_iou_loss
from detloss.regression.focal_eiou import FocalEIoULoss, focal_eiou_loss
from detloss.regression.focaler_iou import FocalerIoULoss, focaler_iou_loss
from detloss.regression.giou import GIoULoss, giou_loss
from detloss.regression.huber import HuberLoss, huber_loss
from detloss.regression.inner_iou import InnerIoULoss, inner_iou_loss
from detloss.regression.interp_iou import InterpIoULoss, interp_iou_loss
from detloss.regression.iou import IoULoss, iou_loss
from detloss.regression.l1 import L1Loss, l1_loss
from detloss.regression.l2 import L2Loss, l2_loss
from detloss.regression.mpdiou import MPDIoULoss, mpdiou_loss
from detloss.regression.nwd import NWDLoss, nwd_loss
from detloss.regression.piou import PIoULoss, piou_loss
from detloss.regression.piou_v2 import PIoUv2Loss, piou_v2_loss
from detloss.regression.shape_iou import ShapeIoULoss, shape_iou_loss
from detloss.regression.siou import SIoULoss, siou_loss
from detloss.regression.smooth_l1 import SmoothL1Loss, beta_from_sigma, smooth_l1_loss
from detloss.regression.wise_iou import WiseIoULoss, wise_iou_loss
from detloss.regression.yolo import YOLOLoss, yolo_loss

__all__ = [
    "AlphaIoULoss",
    "BalancedL1Loss",
    "BoundedIoULoss",
    "BoxLoss",
    "CIoULoss",
    "CenterLoss",
    "ComposedIoULoss",
    "DIoULoss",
    "DistributionFocalLoss",
    "EIoULoss",
    "ExtendedIoULoss",
    "FocalEIoULoss",
    "FocalerIoULoss",
    "GIoULoss",
    "HuberLoss",
    "InnerIoULoss",
    "InterpIoULoss",
    "IoULoss",
    "L1Loss",
    "L2Loss",
    "MPDIoULoss",
    "NWDLoss",
    "PIoULoss",
    "PIoUv2Loss",
    "SIoULoss",
    "ShapeIoULoss",
    "SmoothL1Loss",
    "WiseIoULoss",
    "YOLOLoss",
    "alpha_iou_loss",
    "balanced_l1_loss",
    "beta_from_sigma",
    "bounded_iou_loss",
    "center_loss",
    "ciou_loss",
    "composed_iou_loss",
    "diou_loss",
    "distribution_focal_loss",
    "eiou_loss",
    "extended_iou_loss",
    "focal_eiou_loss",
    "focaler_iou_loss",
    "giou_loss",
    "huber_loss",
    "inner_iou_loss",
    "interp_iou_loss",
    "iou_loss",
    "l1_loss",
    "l2_loss",
    "mpdiou_loss",
    "nwd_loss",
    "piou_loss",
    "piou_v2_loss",
    "shape_iou_loss",
    "siou_loss",
    "smooth_l1_loss",
    "wise_iou_loss",
    "yolo_loss",
]
