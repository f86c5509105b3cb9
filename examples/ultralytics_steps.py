"""Trains a detector of Ultralytics' for a few steps with a loss of detloss.

    python examples/ultralytics_steps.py yolov8n.yaml yolov8
    python examples/ultralytics_steps.py yolo26n.yaml yolo26 --epochs 20

Scenes of handwritten digits are written to a folder, and Ultralytics' own trainer reads them there,
with its augmentation, moving average, validation and checkpoints. Before the first step the loss of
a batch is compared with Ultralytics' own. It needs ``pip install ultralytics``, and no download.
"""

import argparse
import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from digits import digit_scenes
from image_sets import ImageSet
from torch import Tensor, nn
from torchvision.utils import save_image
from ultralytics import YOLO
from ultralytics.cfg import get_cfg

import detloss
from detloss.integrations.ultralytics import use_loss

NAMES = {
    "classification": "cls_loss",
    "box/ciou": "box_loss",
    "box/distribution_focal": "dfl_loss",
}
"""What Ultralytics calls the terms of YOLOv8."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", default="yolov8n.yaml")
    parser.add_argument("loss", nargs="?", default="yolov8", help="a config")
    parser.add_argument("--epochs", type=int, default=10, help="of ten steps")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    settings = parser.parse_args()
    torch.manual_seed(0)

    yolo = YOLO(settings.model)
    criterion = detloss.load_config(settings.loss)
    scenes = digit_scenes(seed=0, train=10 * settings.batch, test=settings.batch)
    compare(yolo.model, criterion, scenes.train, settings.batch)
    names = {name: NAMES[name] for name in criterion.terms if name in NAMES}
    use_loss(yolo, criterion, names=names)
    yolo.add_callback("on_train_epoch_end", show)
    with TemporaryDirectory() as folder:
        write(Path(folder), scenes.train, "train")
        write(Path(folder), scenes.test, "val")
        data = Path(folder) / "data.yaml"
        classes = dict(enumerate(scenes.classes))
        data.write_text(
            yaml.safe_dump({"path": folder, "train": "train", "val": "val", "names": classes})
        )
        yolo.train(
            data=str(data),
            epochs=settings.epochs,
            batch=settings.batch,
            nbs=settings.batch,
            imgsz=scenes.train[0][0].shape[-1],
            optimizer="AdamW",
            lr0=settings.learning_rate,
            warmup_epochs=0,
            workers=0,
            device="cpu",
            amp=False,
            plots=False,
            project=folder,
        )


def show(trainer: Any) -> None:
    """Prints the mean losses of an epoch."""
    items = trainer.label_loss_items(trainer.tloss)
    print(f"epoch {trainer.epoch + 1:3d}", {name: round(float(v), 4) for name, v in items.items()})


def compare(model: nn.Module, criterion: nn.Module, scenes: ImageSet, size: int) -> None:
    """Prints Ultralytics' own loss of a batch and that of the criterion."""
    pairs = [scenes[index] for index in range(size)]
    batch = {
        "img": torch.stack([image for image, _ in pairs]),
        "cls": torch.cat([target["labels"] for _, target in pairs]).float()[:, None],
        "bboxes": torch.cat([fractions(*pair) for pair in pairs]),
        "batch_idx": torch.cat(
            [torch.full((len(target["labels"]),), float(i)) for i, (_, target) in enumerate(pairs)]
        ),
    }
    for name in ("Ultralytics", "detloss"):
        tried = copy.deepcopy(model).train()
        tried.args = get_cfg()
        if name == "detloss":
            use_loss(tried, criterion)
        loss, items = tried.loss(batch)
        shown = {key: round(value.item(), 4) for key, value in items.items()}
        print(f"{name:12} {loss.sum().item():.4f}", shown)


def write(folder: Path, scenes: ImageSet, part: str) -> None:
    """Writes images, and a text file beside each with a line ``class cx cy w h`` an object."""
    (folder / part).mkdir()
    for index in range(len(scenes)):
        image, target = scenes[index]
        save_image(image, folder / part / f"{index}.png")
        rows = zip(target["labels"].tolist(), fractions(image, target).tolist(), strict=True)
        lines = [f"{label} {' '.join(map(str, box))}\n" for label, box in rows]
        (folder / part / f"{index}.txt").write_text("".join(lines))


def fractions(image: Tensor, target: dict[str, Tensor]) -> Tensor:
    """The boxes of an image as (cx, cy, w, h) in fractions of it."""
    height, width = image.shape[-2:]
    return detloss.boxes.convert_boxes(
        target["boxes"], "xyxy", "cxcywhn", image_size=(height, width)
    )


if __name__ == "__main__":
    main()
