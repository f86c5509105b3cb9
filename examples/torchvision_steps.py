"""Trains a detector of torchvision's for a few steps with a loss of detloss.

    python examples/torchvision_steps.py fcos
    python examples/torchvision_steps.py ssd --steps 300 --loss my_ssd.yaml

On scenes of handwritten digits. Before the first step the loss is compared with torchvision's own,
which it equals as long as the config is the model's; a Faster R-CNN draws other anchors for it, and
comes near. Then it is printed every ten steps.
"""

import argparse
import copy
from collections.abc import Callable, Sequence

import torch
from digits import digit_scenes
from small_retinanet import CHANNELS, SmallPyramid, small_retinanet
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, ssdlite320_mobilenet_v3_large
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD

import detloss
from detloss.integrations.torchvision import use_loss

CLASSES = 10
SIZE = 128
SCALE = {"min_size": SIZE, "max_size": SIZE}
Target = dict[str, Tensor]


def retinanet() -> nn.Module:
    return small_retinanet(
        CLASSES,
        anchor_sizes=((13.0, 18.0), (25.0, 35.0)),
        aspect_ratios=(1.4,),
        image_size=SIZE,
    )


def fcos() -> nn.Module:
    anchors = AnchorGenerator(((8,), (16,), (32,)), ((1.0,),) * 3)
    return FCOS(SmallPyramid(levels=3), CLASSES, anchor_generator=anchors, **SCALE)


def ssd() -> nn.Module:
    backbone = SmallPyramid(levels=3)
    backbone.out_channels = [CHANNELS] * 3  # type: ignore[assignment]  # of each level
    anchors = DefaultBoxGenerator([[2]] * 3, scales=[0.12, 0.2, 0.3, 0.4])
    return SSD(backbone, anchors, (SIZE, SIZE), CLASSES + 1)


def ssdlite() -> nn.Module:
    return ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=CLASSES + 1
    )


def faster_rcnn() -> nn.Module:
    anchors = AnchorGenerator(((16,), (32,), (48,)), ((0.7, 1.4),) * 3)
    return FasterRCNN(SmallPyramid(levels=3), CLASSES + 1, rpn_anchor_generator=anchors, **SCALE)


MODELS: dict[str, tuple[Callable[[], nn.Module], str, int]] = {
    "retinanet": (retinanet, "retinanet", 0),
    "fcos": (fcos, "fcos", 0),
    "ssd": (ssd, "ssd", 1),
    "ssdlite": (ssdlite, "ssd", 1),
    "faster_rcnn": (faster_rcnn, "rpn", 1),
}
"""Name -> how it is built, the config that equals torchvision's loss, and the label of a "0"."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--loss", help="a config; the model's by default")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    settings = parser.parse_args()
    torch.manual_seed(0)

    build, config, first_label = MODELS[settings.model]
    criterion = detloss.load_config(settings.loss or config)
    model = build().train()
    scenes = digit_scenes(seed=0, train=settings.steps * settings.batch).train

    def batch(step: int) -> tuple[list[Tensor], list[Target]]:
        pairs = [scenes[step * settings.batch + index] for index in range(settings.batch)]
        targets = [{**target, "labels": target["labels"] + first_label} for _, target in pairs]
        return [image for image, _ in pairs], targets

    compare(model, copy.deepcopy(model), criterion, batch(0))
    use_loss(model, criterion)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)
    losses: list[float] = []
    for step in range(settings.steps):
        terms = model(*batch(step))
        total = sum(terms.values(), torch.zeros(()))
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        losses.append(total.item())
        if len(losses) % 10 == 0:
            print(f"step {step + 1:4d}  loss {mean(losses[-10:]):.3f}")


def compare(
    theirs: nn.Module,
    ours: nn.Module,
    criterion: nn.Module,
    batch: tuple[list[Tensor], list[Target]],
) -> None:
    """Prints torchvision's own loss of a batch and that of the criterion."""
    use_loss(ours, copy.deepcopy(criterion))
    for name, model in (("torchvision", theirs), ("detloss", ours)):
        torch.manual_seed(0)  # samplers and dropout draw
        terms = model(*batch)
        print(f"{name:12}", {key: round(value.item(), 5) for key, value in terms.items()})


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
