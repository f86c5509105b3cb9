"""A RetinaNet small enough to train from scratch on two CPU cores."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead

CHANNELS = 64
"""Width of the pyramid's levels and of the head."""


def small_retinanet(
    classes: int,
    *,
    anchor_sizes: Sequence[Sequence[float]],
    aspect_ratios: Sequence[float],
    image_size: int,
) -> RetinaNet:
    """RetinaNet of torchvision over `SmallPyramid`, 0.7 million weights, randomly initialised.

    Args:
        classes: Number of classes; background needs none.
        anchor_sizes: Square roots of the anchors' areas in pixels, for each level from stride 8 up.
        aspect_ratios: Height over width of the anchors.
        image_size: The longest side of an image; the model does not scale images of that size.
    """
    ratios = tuple(aspect_ratios)
    anchors = AnchorGenerator(tuple(map(tuple, anchor_sizes)), (ratios,) * len(anchor_sizes))
    head = RetinaNetHead(
        CHANNELS,
        anchors.num_anchors_per_location()[0],
        classes,
        norm_layer=normalization,
    )
    for branch in (head.classification_head, head.regression_head):
        branch.conv = branch.conv[:2]  # of four: half the time, and as good on small images
    model = RetinaNet(
        SmallPyramid(levels=len(anchor_sizes)),
        classes,
        anchor_generator=anchors,
        head=head,
        min_size=image_size,  # with max_size the same, the longest side decides
        max_size=image_size,
        image_mean=[0.5] * 3,
        image_std=[0.25] * 3,
        topk_candidates=300,
        detections_per_img=100,
    )
    return model.to(memory_format=torch.channels_last)  # a fifth faster on a CPU


class SmallPyramid(nn.Module):
    """A residual network with a feature pyramid from stride 8 up.

    Args:
        levels: Levels of the pyramid, the strides being 8, 16, 32 ...
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.out_channels = CHANNELS
        self.stem = nn.Sequential(convolution(3, 16, 2), convolution(16, 32, 2), Residual(32))
        widths = [32, 64, *[128] * (levels - 1)]
        self.stages = nn.ModuleList(
            nn.Sequential(convolution(narrow, wide, 2), Residual(wide))
            for narrow, wide in pairwise(widths)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, CHANNELS, 1) for width in widths[1:])

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Level name -> features (B, CHANNELS, H / stride, W / stride), the finest first."""
        features = self.stem(images.contiguous(memory_format=torch.channels_last))
        laterals = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            features = stage(features)
            laterals.append(lateral(features))
        pyramid = [laterals.pop()]
        while laterals:
            finer = laterals.pop()
            pyramid.insert(0, finer + interpolate(pyramid[0], size=finer.shape[-2:]))
        return {str(level): features for level, features in enumerate(pyramid)}


class Residual(nn.Module):
    """Two convolutions around which the input is carried."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = convolution(width, width)
        self.outer = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), normalization(width)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        return torch.relu(features + self.outer(self.inner(features)))


def convolution(narrow: int, wide: int, stride: int = 1) -> nn.Sequential:
    """3 x 3 convolution, normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(narrow, wide, 3, stride, padding=1, bias=False),
        normalization(wide),
        nn.ReLU(inplace=True),
    )


def normalization(channels: int) -> nn.GroupNorm:
    """Of each image by itself, so that it does not matter which images are in its batch."""
    return nn.GroupNorm(8, channels)
