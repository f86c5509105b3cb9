"""The losses of other packages, by the names that they have here.

A peer takes predictions and targets and returns the sum of its loss. They are boxes or deltas
(N, 4) each; logits (N, 4, bins) and distances in bins (N, 4); logits (N, C) and the label of each
class (N, C); or, where the classes share a softmax, logits (N, K) and class indices (N,).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from detloss.bench.cases.runners import optional

PeerLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Peer:
    """A loss of another package, which need not be installed.

    Attributes:
        module: Where it is.
        make: Of the imported module, the loss.
        soft: Whether it is the same loss for labels between 0 and 1, too.
        options: Those of ours with which it is the same loss, where they are no defaults.
    """

    module: str
    make: Callable[[Any], PeerLoss]
    soft: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def package(self) -> str:
        """What the package is called."""
        root = self.module.split(".")[0]
        return "PyTorch" if root == "torch" else root

    def loss(self) -> PeerLoss | None:
        """The loss, or None where the package is not installed or does not import."""
        module = optional(self.module)
        return self.make(module) if module else None

    def of(self, **options: Any) -> "Peer":
        """The same, for ours with those options."""
        return replace(self, options=options)


def peers_of(name: str) -> dict[str, PeerLoss]:
    """Package -> what is the loss of that name with its default options, where there is one.

    Example:
        >>> list(peers_of("huber"))
        ['PyTorch']
    """
    losses = {peer.package: peer.loss() for peer in PEERS.get(name, ()) if not peer.options}
    return {package: loss for package, loss in losses.items() if loss}


def _function(module: str, name: str, *, soft: bool = False, **options: Any) -> Peer:
    """A function that takes a reduction."""
    return Peer(module, lambda of: partial(getattr(of, name), reduction="sum", **options), soft)


def _module(module: str, name: str, *, soft: bool = False, **options: Any) -> Peer:
    """A module that takes a reduction."""
    return Peer(module, lambda of: getattr(of, name)(reduction="sum", **options), soft)


_pytorch = partial(_function, "torch.nn.functional")
_torchvision = partial(_function, "torchvision.ops")
_fvcore = partial(_function, "fvcore.nn")
_kornia = partial(_function, "kornia.losses")
_timm = partial(_module, "timm.loss")
_mmdet = partial(_module, "mmdet.models.losses")


def _ultralytics_iou(**kind: bool) -> Peer:
    """1 less an overlap."""

    def make(metrics: Any) -> PeerLoss:
        return lambda pred, target: (1 - metrics.bbox_iou(pred, target, xywh=False, **kind)).sum()

    return Peer("ultralytics.utils.metrics", make)


def _ultralytics_focal(losses: Any) -> PeerLoss:
    loss = losses.FocalLoss(gamma=2.0)
    return lambda logits, label: loss(logits, label) * logits.shape[-1]  # of means over the classes


def _ultralytics_varifocal(losses: Any) -> PeerLoss:
    loss = losses.VarifocalLoss()
    return lambda logits, label: loss(logits, label, (label > 0).to(label)) * logits.shape[-1]


def _ultralytics_distances(losses: Any) -> PeerLoss:
    def of_bins(logits: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = losses.DFLoss(logits.shape[-1])(logits.flatten(0, 1), target)
        return loss.sum()

    return of_bins


def _mmdet_distances(losses: Any) -> PeerLoss:
    loss = losses.DistributionFocalLoss(reduction="sum")
    return lambda logits, target: loss(logits.flatten(0, 1), target.flatten()) / 4


def _mmdet_quality_focal(losses: Any) -> PeerLoss:
    loss = losses.QualityFocalLoss(reduction="sum")

    def of_labels(logits: Tensor, label: Tensor) -> Tensor:
        quality, index = label.max(-1)
        background = torch.full_like(index, logits.shape[-1])
        total: Tensor = loss(logits, (torch.where(quality > 0, index, background), quality))
        return total

    return of_labels


def _mmdet_gaussian_focal(losses: Any) -> PeerLoss:
    loss = losses.GaussianFocalLoss(reduction="sum")  # of probabilities
    return lambda logits, label: loss(logits.sigmoid(), label)


def _monai_focal(losses: Any) -> PeerLoss:
    return lambda logits, label: losses.sigmoid_focal_loss(logits, label, alpha=0.25).sum()


def _monai_softmax_focal(losses: Any) -> PeerLoss:
    def of_indices(logits: Tensor, index: Tensor) -> Tensor:
        one_hot = functional.one_hot(index, logits.shape[-1]).to(logits)
        total: Tensor = losses.softmax_focal_loss(logits, one_hot).sum()
        return total

    return of_indices


def _brier(functions: Any) -> PeerLoss:
    return lambda logits, label: functions.mse_loss(logits.sigmoid(), label, reduction="sum")


PEERS: dict[str, list[Peer]] = {
    "asymmetric": [_timm("AsymmetricLossMultiLabel", gamma_neg=4, gamma_pos=0)],
    "balanced_cross_entropy": [_torchvision("sigmoid_focal_loss", alpha=0.75, gamma=0)],
    "balanced_l1": [_mmdet("BalancedL1Loss")],
    "bounded_iou": [_mmdet("BoundedIoULoss", eps=1e-7)],
    "ciou": [
        _torchvision("complete_box_iou_loss"),
        _mmdet("CIoULoss").of(convention="mmdet"),
        _ultralytics_iou(CIoU=True),
    ],
    "diou": [
        _torchvision("distance_box_iou_loss"),
        _mmdet("DIoULoss"),
        _ultralytics_iou(DIoU=True),
    ],
    "distribution_focal": [
        Peer("mmdet.models.losses", _mmdet_distances),
        Peer("ultralytics.utils.loss", _ultralytics_distances),
    ],
    "extended_iou": [_mmdet("EIoULoss")],
    "gaussian_focal": [Peer("mmdet.models.losses", _mmdet_gaussian_focal, soft=True)],
    "giou": [
        _torchvision("generalized_box_iou_loss"),
        _fvcore("giou_loss"),
        _mmdet("GIoULoss"),
        _module("monai.losses", "BoxGIoULoss"),
        _ultralytics_iou(GIoU=True),
    ],
    "huber": [_pytorch("huber_loss")],
    "iou": [_mmdet("IoULoss", mode="linear"), _ultralytics_iou()],
    "l1": [_pytorch("l1_loss"), _mmdet("L1Loss")],
    "l2": [_pytorch("mse_loss"), _mmdet("MSELoss")],
    "mean_squared_error": [Peer("torch.nn.functional", _brier, soft=True)],
    "multilabel_softmax_cross_entropy": [_pytorch("cross_entropy")],
    "quality_focal": [Peer("mmdet.models.losses", _mmdet_quality_focal, soft=True)],
    "sigmoid_cross_entropy": [_pytorch("binary_cross_entropy_with_logits", soft=True)],
    "sigmoid_focal": [
        _torchvision("sigmoid_focal_loss"),
        _fvcore("sigmoid_focal_loss", alpha=0.25),
        _kornia("binary_focal_loss_with_logits"),
        _function("mmdet.models.losses.focal_loss", "py_sigmoid_focal_loss"),
        Peer("monai.losses.focal_loss", _monai_focal),
    ],
    "siou": [_mmdet("SIoULoss").of(convention="mmdet")],
    "smooth_l1": [
        _pytorch("smooth_l1_loss"),
        _fvcore("smooth_l1_loss", beta=1.0),
        _mmdet("SmoothL1Loss"),
    ],
    "soft_focal": [
        _torchvision("sigmoid_focal_loss", soft=True),
        _fvcore("sigmoid_focal_loss", alpha=0.25, soft=True),
        Peer("ultralytics.utils.loss", _ultralytics_focal, soft=True),
    ],
    "softmax_cross_entropy": [_pytorch("cross_entropy"), _mmdet("CrossEntropyLoss")],
    "softmax_focal": [
        _kornia("focal_loss", alpha=None),
        Peer("monai.losses.focal_loss", _monai_softmax_focal),
    ],
    "varifocal": [
        _mmdet("VarifocalLoss", soft=True),
        Peer("ultralytics.utils.loss", _ultralytics_varifocal, soft=True),
    ],
}
"""Loss -> its peers, with the options that ours has by default, or with `Peer.options`."""
