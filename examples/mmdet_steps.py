"""Trains a RetinaNet of MMDetection's for a few steps with losses of detloss.

    python examples/mmdet_steps.py
    python examples/mmdet_steps.py --box detloss.CIoU --weight 2.0

On scenes of handwritten digits, by MMDetection's own ``train_step``. Before the first step the loss
of a batch is compared with that of MMDetection's FocalLoss and GIoULoss, which it equals as long as
the losses are the same. It needs mmdet with mmcv and mmengine, and no download.
"""

import argparse
from typing import Any

import torch
from digits import digit_scenes
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.optim import OptimWrapper
from mmengine.structures import InstanceData
from torch import nn

import detloss.integrations.mmdet  # noqa: F401, it files the losses

FOCAL = {"use_sigmoid": True, "gamma": 2.0, "alpha": 0.25}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--classes", default="detloss.SigmoidFocal", help="the loss of classes")
    parser.add_argument("--box", default="detloss.GIoU", help="the loss of boxes")
    parser.add_argument("--weight", type=float, default=1.0, help="of the loss of boxes")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=4)
    settings = parser.parse_args()
    register_all_modules()
    scenes = digit_scenes(seed=0, train=settings.steps * settings.batch).train

    def batch(step: int) -> dict[str, list[Any]]:
        pairs = [scenes[step * settings.batch + index] for index in range(settings.batch)]
        return {
            "inputs": [image * 255 for image, _ in pairs],
            "data_samples": [sample(target, image.shape[-2:]) for image, target in pairs],
        }

    theirs = build("FocalLoss", "GIoULoss", 1.0)
    model = build(settings.classes, settings.box, settings.weight)
    for name, compared in (("MMDetection", theirs), ("detloss", model)):
        data = compared.data_preprocessor(batch(0), training=True)
        with torch.no_grad():
            losses, _ = compared.parse_losses(compared(**data, mode="loss"))
        print(f"{name:12} {losses.item():.5f}")

    wrapper = OptimWrapper(
        torch.optim.AdamW(model.parameters(), lr=5e-4), clip_grad={"max_norm": 10.0}
    )
    seen: list[float] = []
    for step in range(settings.steps):
        seen.append(model.train_step(batch(step), wrapper)["loss"].item())
        if len(seen) % 10 == 0:
            print(f"step {step + 1:4d}  loss {sum(seen[-10:]) / 10:.3f}")


def build(classes: str, box: str, weight: float) -> nn.Module:
    """A small RetinaNet with these losses, the same weights in every call."""
    torch.manual_seed(0)
    levels = [8, 16, 32]
    head = {
        "type": "RetinaHead",
        "num_classes": 10,
        "in_channels": 64,
        "feat_channels": 64,
        "stacked_convs": 2,
        "reg_decoded_bbox": True,
        "anchor_generator": {
            "type": "AnchorGenerator",
            "octave_base_scale": 2,
            "scales_per_octave": 2,
            "ratios": [1.4],
            "strides": levels,
        },
        "bbox_coder": {"type": "DeltaXYWHBBoxCoder"},
        "loss_cls": {"type": classes, **FOCAL},
        "loss_bbox": {"type": box, "loss_weight": weight},
    }
    assigner = {"type": "MaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.4, "min_pos_iou": 0}
    return MODELS.build(
        {
            "type": "RetinaNet",
            "data_preprocessor": {
                "type": "DetDataPreprocessor",
                "mean": [127.5] * 3,
                "std": [64.0] * 3,
                "pad_size_divisor": 32,
            },
            "backbone": {"type": "ResNet", "depth": 18, "norm_eval": False},
            "neck": {
                "type": "FPN",
                "in_channels": [64, 128, 256, 512],
                "out_channels": 64,
                "start_level": 1,
                "num_outs": len(levels),
            },
            "bbox_head": head,
            "train_cfg": {
                "assigner": {**assigner, "ignore_iof_thr": -1},
                "sampler": {"type": "PseudoSampler"},
                "allowed_border": -1,
                "pos_weight": -1,
                "debug": False,
            },
        }
    ).train()


def sample(target: dict[str, torch.Tensor], shape: torch.Size) -> DetDataSample:
    """The objects of an image, as MMDetection wants them."""
    size = tuple(shape)
    found = DetDataSample(
        metainfo={"img_shape": size, "ori_shape": size, "scale_factor": (1.0, 1.0)}
    )
    found.gt_instances = InstanceData(bboxes=target["boxes"], labels=target["labels"])
    return found


if __name__ == "__main__":
    main()
