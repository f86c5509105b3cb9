"""Trains a small RetinaNet with the losses that a config names, and shows what it learned.

    python examples/train_detector.py --config configs/retinanet_giou.yaml

trains on scenes of handwritten digits, which need no download; ``--data voc:DIR`` and ``--data
coco:IMAGES:ANNOTATIONS.json`` train on photos. Into ``--out`` go metrics.json, the resolved config,
the loss curves, a picture of detections beside the ground truth, and a checkpoint. Ctrl-C saves a
checkpoint too and says how to go on.
"""

import argparse
import json
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml
from detection_data import DATA_FORMS, DetectionData, ImageSet, Target, load_data
from figures import draw_detections, draw_losses
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from small_retinanet import small_retinanet
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from torchmetrics.detection import MeanAveragePrecision
from torchvision.models.detection import RetinaNet

import detloss
from detloss.integrations.torchvision import use_loss

ROOT = Path(__file__).parents[1]
PICTURED = 6
"""Test images in the picture."""

console = Console()


@dataclass(frozen=True)
class Settings:
    """All that a run depends on.

    Attributes:
        config: YAML file that names the losses.
        data: ``digits``, ``voc:DIR`` or ``coco:IMAGES:ANNOTATIONS.json``.
        policy: What to do with bad boxes in the data: "drop", "clip" or "error".
        steps: Training steps.
        batch_size: Images a step.
        learning_rate: Peak of the one-cycle schedule.
        seed: Of the weights, the scenes and their order.
        device: Where to train.
        out: Folder of the results.
    """

    config: str = str(ROOT / "configs" / "retinanet.yaml")
    data: str = "digits"
    policy: str = "drop"
    steps: int = 1200
    batch_size: int = 16
    learning_rate: float = 3e-3
    seed: int = 0
    device: str = "cpu"
    out: str = "runs/digits"


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        metrics: AP, AP50, AP75 and what they cost, as metrics.json has them.
        precision: AP at each of `thresholds`.
        thresholds: IoU that counts as found.
    """

    metrics: dict[str, Any]
    precision: list[float]
    thresholds: list[float]


@dataclass
class Run:
    """A run between two steps: what a checkpoint holds."""

    settings: Settings
    model: RetinaNet
    optimizer: Optimizer
    schedule: LRScheduler
    history: dict[str, list[float]]
    seconds: float = 0.0

    @property
    def step(self) -> int:
        """Steps done."""
        return len(next(iter(self.history.values()), []))


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, evaluates and draws; returns the exit status."""
    settings, resume = parse(arguments)
    try:
        criterion = detloss.load_config(settings.config)
        data = load_data(settings.data, seed=settings.seed, policy=settings.policy)
    except (detloss.ConfigError, FileNotFoundError, ValueError) as error:
        console.print(str(error), style="red", soft_wrap=True, markup=False, highlight=False)
        return 2
    for change in data.changes:
        console.print(change, style="yellow", soft_wrap=True, markup=False, highlight=False)

    run = start(settings, data, criterion)
    if resume is not None:
        load_checkpoint(resume, run)
    if not train(run, data):
        checkpoint = save_checkpoint(run)
        command = shlex.join([sys.executable, sys.argv[0], "--resume", str(checkpoint)])
        console.print(f"Stopped after step {run.step}. To go on:\n  {command}", soft_wrap=True)
        return 130
    save_checkpoint(run)
    print_result(finish(run, data, criterion).metrics)
    console.print(f"Results are in {settings.out}", soft_wrap=True)
    return 0


def parse(arguments: Sequence[str] | None) -> tuple[Settings, Path | None]:
    """The settings of the command line, or those of the run that it resumes."""
    defaults = Settings()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default=defaults.config, help="YAML file that names the losses")
    parser.add_argument("--data", default=defaults.data, help=DATA_FORMS)
    parser.add_argument(
        "--policy",
        default=defaults.policy,
        choices=("drop", "clip", "error"),
        help="what to do with bad boxes in the data",
    )
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--batch-size", type=int, default=defaults.batch_size)
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--device", default=defaults.device, help="such as cpu or cuda")
    parser.add_argument("--out", default=defaults.out, help="folder of the results")
    parser.add_argument(
        "--resume", type=Path, help="checkpoint to go on from; the other options are its own"
    )
    options = vars(parser.parse_args(arguments))
    resume = options.pop("resume")
    if resume is not None:
        if not resume.is_file():
            parser.error(f"--resume: no checkpoint {resume}")
        return Settings(**torch.load(resume, weights_only=True)["settings"]), resume
    if options["steps"] < 1 or options["batch_size"] < 1:
        parser.error("--steps and --batch-size must be at least 1")
    return Settings(**options), None


def start(settings: Settings, data: DetectionData, criterion: detloss.DetectorLoss) -> Run:
    """A run before its first step."""
    torch.manual_seed(settings.seed)
    image, _ = data.train[0]
    model = small_retinanet(
        len(data.classes),
        anchor_sizes=data.anchor_sizes,
        aspect_ratios=data.aspect_ratios,
        image_size=max(image.shape),
    )
    use_loss(model, criterion).to(settings.device)
    optimizer = AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=1e-4)
    schedule = OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps + 1, pct_start=0.15
    )
    history: dict[str, list[float]] = {name: [] for name in criterion.term_names}
    return Run(settings, model, optimizer, schedule, history)


def train(run: Run, data: DetectionData) -> bool:
    """Trains to the last step; returns False if the user interrupted it."""
    settings = run.settings
    run.model.train()
    began, done_before = time.perf_counter() - run.seconds, run.step
    with interruptible() as interrupted, progress_bar() as progress:
        task = progress.add_task("", total=settings.steps, completed=run.step, terms="", speed="")
        while run.step < settings.steps and not interrupted:
            images, targets = batch(data, run.step, settings)
            terms = run.model(images, targets)
            total: Tensor = torch.stack(list(terms.values())).sum()
            run.optimizer.zero_grad()
            total.backward()
            torch.nn.utils.clip_grad_norm_(run.model.parameters(), 10.0)
            run.optimizer.step()
            run.schedule.step()

            for name, term in terms.items():
                run.history[name].append(term.item())
            seconds = time.perf_counter() - began - run.seconds
            speed = (run.step - done_before) * settings.batch_size / seconds
            progress.update(
                task,
                completed=run.step,
                terms="  ".join(f"{name} {values[-1]:.3f}" for name, values in run.history.items()),
                speed=f"{speed:.0f} images/s",
            )
    run.seconds = time.perf_counter() - began
    return run.step == settings.steps


def batch(data: DetectionData, step: int, settings: Settings) -> tuple[list[Tensor], list[Target]]:
    """The images of a step and their targets: a function of step and seed, so a run can resume."""
    images, targets = [], []
    for place in range(step * settings.batch_size, (step + 1) * settings.batch_size):
        epoch, index = divmod(place, len(data.train))
        shuffled = torch.Generator().manual_seed(settings.seed + epoch)
        order = torch.randperm(len(data.train), generator=shuffled)
        image, target = data.train[int(order[index])]
        if data.flip and torch.rand((), generator=torch.Generator().manual_seed(place)) < 0.5:
            image, target = mirror(image, target)
        images.append(image.to(settings.device))
        targets.append({key: value.to(settings.device) for key, value in target.items()})
    return images, targets


def mirror(image: Tensor, target: Target) -> tuple[Tensor, Target]:
    """The image and its boxes with left and right exchanged."""
    x1, y1, x2, y2 = target["boxes"].unbind(-1)
    width = image.shape[-1]
    return image.flip(-1), target | {"boxes": torch.stack([width - x2, y1, width - x1, y2], dim=-1)}


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """A list that Ctrl-C fills, so that a step is never left half done; a second one kills."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, before)


def progress_bar() -> Progress:
    """Steps, each term, images per second and the time that is left."""
    return Progress(
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.fields[terms]}"),
        TextColumn("[cyan]{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=console,
    )


def save_checkpoint(run: Run) -> Path:
    """Writes all that a run needs to go on as if it had not stopped."""
    folder = Path(run.settings.out)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "checkpoint.pt"
    state = {
        "settings": asdict(run.settings),
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "schedule": run.schedule.state_dict(),
        "history": run.history,
        "seconds": run.seconds,
    }
    torch.save(state, path)
    return path


def load_checkpoint(path: Path, run: Run) -> None:
    """Puts `run` where the checkpoint was written."""
    state = torch.load(path, map_location=run.settings.device, weights_only=True)
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.schedule.load_state_dict(state["schedule"])
    run.history = state["history"]
    run.seconds = state["seconds"]


def finish(run: Run, data: DetectionData, criterion: detloss.DetectorLoss) -> Result:
    """Evaluates a trained run and writes its results."""
    settings, folder = run.settings, Path(run.settings.out)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    detections = detect(run.model, data.test, settings)
    result = evaluate(detections, data.test)
    result.metrics.update(
        steps=settings.steps,
        seconds_training=round(run.seconds, 1),
        seconds_evaluation=round(time.perf_counter() - began, 1),
        images_per_second=round(settings.steps * settings.batch_size / run.seconds, 1),
        settings=asdict(settings),
    )
    (folder / "metrics.json").write_text(json.dumps(result.metrics, indent=2) + "\n")
    (folder / "config.yaml").write_text(yaml.safe_dump(criterion.config(), sort_keys=False))

    name = Path(settings.config).stem
    draw_losses(folder / "losses.png", run.history, f"{name} on {settings.data.split(':')[0]}")
    pictured = range(min(PICTURED, len(data.test)))
    images, targets = zip(*(data.test[index] for index in pictured), strict=True)
    draw_detections(folder / "detections.png", images, targets, detections, data.classes)
    return result


@torch.no_grad()
def detect(model: RetinaNet, images: ImageSet, settings: Settings) -> list[Target]:
    """What the model finds in each image: "boxes", "labels" and "scores"."""
    model.eval()
    found: list[Target] = []
    for first in range(0, len(images), settings.batch_size):
        last = min(first + settings.batch_size, len(images))
        inputs = [images[index][0].to(settings.device) for index in range(first, last)]
        found += [{key: value.cpu() for key, value in one.items()} for one in model(inputs)]
    return found


def evaluate(detections: Sequence[Target], images: ImageSet) -> Result:
    """COCO's average precision; objects to ignore count neither for nor against."""
    metric = MeanAveragePrecision(backend="faster_coco_eval", extended_summary=True)
    targets = [images[index][1] for index in range(len(images))]
    metric.update(
        list(detections),
        [
            {"boxes": t["boxes"], "labels": t["labels"], "iscrowd": t["ignore"].int()}
            for t in targets
        ],
    )
    computed = metric.compute()
    # (threshold, recall, class, all areas, most detections); -1 where a class has no object
    precision = computed["precision"][..., 0, -1]
    known = precision[0, 0] >= 0
    return Result(
        metrics={
            "AP": round(float(computed["map"]), 4),
            "AP50": round(float(computed["map_50"]), 4),
            "AP75": round(float(computed["map_75"]), 4),
        },
        precision=precision[..., known].mean(dim=(1, 2)).tolist(),
        thresholds=list(metric.iou_thresholds),
    )


def print_result(metrics: dict[str, Any]) -> None:
    """The table at the end."""
    table = Table(title=f"{Path(metrics['settings']['config']).stem}, test images")
    row = []
    for column in ("AP", "AP50", "AP75"):
        table.add_column(column, justify="right")
        row.append(f"{metrics[column]:.3f}")
    table.add_column("seconds", justify="right")
    table.add_row(*row, f"{metrics['seconds_training'] + metrics['seconds_evaluation']:.0f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
