"""Trains a small RetinaNet with the losses that a config names, and shows what it learned.

    python examples/train_detector.py --config configs/retinanet_giou.yaml

trains on scenes of handwritten digits, which need no download; ``--data voc:DIR`` and ``--data
coco:IMAGES:ANNOTATIONS.json`` train on photos, and ``--time-limit 15`` ends in time. Into ``--out``
go metrics.json, the resolved config, the loss curves, a picture of detections beside the ground
truth, and a checkpoint. Ctrl-C saves a checkpoint too and says how to go on.

``torchrun --nproc-per-node 2 examples/train_detector.py ...`` shares each batch between two
processes, which learn what one would.

Beside other busy programs, run it with ``OMP_NUM_THREADS=1``: threads that wait for a core that
another program holds can make a step twenty times slower.
"""

import argparse
import json
import math
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, get_args

import numpy as np
import ranks
import torch
import yaml
from detection_data import DATA_FORMS, DetectionData, ImageSet, Policy, Target, load_data
from figures import draw_detections, draw_losses
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from small_retinanet import small_retinanet
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torchmetrics.detection import MeanAveragePrecision
from torchvision.models.detection import RetinaNet

import detloss
from detloss.integrations.torchvision import use_loss

ROOT = Path(__file__).parents[1]
PICTURED = 5
"""Test images in the picture, spread evenly over the test set."""

console = Console()


@dataclass(frozen=True)
class Settings:
    """All that a run depends on.

    Attributes:
        config: YAML file that names the losses, see `config_path`.
        data: ``digits``, ``voc:DIR`` or ``coco:IMAGES:ANNOTATIONS.json``.
        policy: What to do with bad boxes in the data: "drop", "clip" or "error".
        steps: Training steps, None for as many as the time allows.
        time_limit: Minutes of training, None for as many as the steps take.
        batch_size: Images a step.
        learning_rate: Its peak, see `one_cycle`.
        seed: Of the weights, the scenes and their order.
        device: Where to train.
        out: Folder of the results.
    """

    config: str = "configs/retinanet.yaml"
    data: str = "digits"
    policy: Policy = "drop"
    steps: int | None = 1200
    time_limit: float | None = None
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
    history: dict[str, list[float]]
    seconds: float = 0.0

    @property
    def step(self) -> int:
        """Steps done."""
        return len(next(iter(self.history.values()), []))

    @property
    def progress(self) -> float:
        """How much of the training is done, from 0 to 1, by steps or by time."""
        steps, minutes = self.settings.steps, self.settings.time_limit
        by_steps = self.step / steps if steps else 0.0
        by_time = self.seconds / (60 * minutes) if minutes else 0.0
        return min(max(by_steps, by_time), 1.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, evaluates and draws; returns the exit status."""
    settings, resume = parse(arguments)
    ranks.join(settings.device)
    console.quiet = ranks.rank() > 0
    try:
        return run_to_the_end(settings, resume)
    finally:
        ranks.leave()


def run_to_the_end(settings: Settings, resume: Path | None) -> int:
    """Trains, evaluates and draws; returns the exit status."""
    try:
        criterion = detloss.load_config(config_path(settings.config))
        if settings.batch_size % ranks.count():
            raise ValueError(
                f"--batch-size must be a multiple of the {ranks.count()} processes, "
                f"got {settings.batch_size}"
            )
        data = load_data(settings.data, seed=settings.seed, policy=settings.policy)
        run = start(settings, data, criterion)
    except (detloss.ConfigError, FileNotFoundError, ValueError) as error:
        console.print(str(error), style="red", soft_wrap=True, markup=False, highlight=False)
        return 2
    report(data.changes)

    if resume is not None:
        load_checkpoint(resume, run)
    finished = train(run, data)
    if ranks.rank() > 0:
        return 0 if finished else 130
    if not finished:
        checkpoint = save_checkpoint(run)
        command = shlex.join([*ranks.launcher(), sys.argv[0], "--resume", str(checkpoint)])
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
        choices=get_args(Policy),
        help="what to do with bad boxes in the data",
    )
    parser.add_argument("--steps", type=int, help=f"{defaults.steps} unless a time limit is given")
    parser.add_argument("--time-limit", type=float, metavar="MINUTES", help="of training")
    parser.add_argument("--batch-size", type=int, default=defaults.batch_size)
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--device", default=defaults.device, help="such as cpu or cuda")
    parser.add_argument("--out", default=defaults.out, help="folder of the results")
    parser.add_argument(
        "--resume", type=Path, help="checkpoint to go on from, without other options"
    )
    options = vars(parser.parse_args(arguments))
    resume = options.pop("resume")
    if resume is not None:
        if not resume.is_file():
            parser.error(f"--resume: no checkpoint {resume}")
        given = [name for name, value in options.items() if value != parser.get_default(name)]
        if given:
            extra = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            parser.error(f"--resume goes on with the settings of the run; leave out {extra}")
        return Settings(**torch.load(resume, weights_only=True)["settings"]), resume
    for name in ("steps", "time_limit", "batch_size", "learning_rate"):
        if options[name] is not None and options[name] <= 0:
            parser.error(f"--{name.replace('_', '-')} must be positive, got {options[name]}")
    if options["steps"] is None and options["time_limit"] is None:
        options["steps"] = defaults.steps
    return Settings(**options), None


def report(changes: Sequence[str]) -> None:
    """What was wrong with the data, a line each."""
    for change in changes:
        console.print(change, style="yellow", soft_wrap=True, markup=False, highlight=False)


def config_path(text: str) -> Path:
    """The file `text` names, from where the user is or else from the repository."""
    return Path(text) if Path(text).exists() else ROOT / text


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
    if ranks.count() > 1 and hasattr(criterion.normalizer, "sync"):
        criterion.normalizer.sync = True  # counts over all processes, as over a batch in one
    use_loss(model, criterion).to(settings.device)
    optimizer = AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=1e-4)
    history: dict[str, list[float]] = {name: [] for name in criterion.terms}
    return Run(settings, model, optimizer, history)


def train(run: Run, data: DetectionData) -> bool:
    """Trains to the last step or the time limit; returns False if the user interrupted it."""
    settings, seconds_before, steps_before = run.settings, run.seconds, run.step
    began = time.perf_counter() - seconds_before
    model = ranks.averaging(run.model.train())
    interruptions = 0.0
    with interruptible() as interrupted, progress_bar() as bar:
        task = bar.add_task("", total=1.0, step=run.step, terms="", speed="")
        while run.progress < 1 and not interruptions:
            for group in run.optimizer.param_groups:
                group["lr"] = settings.learning_rate * one_cycle(run.progress)
            images, targets = batch(data, run.step, settings)
            terms = model(images, targets)
            total: Tensor = torch.stack(list(terms.values())).sum()
            run.optimizer.zero_grad()
            total.backward()
            torch.nn.utils.clip_grad_norm_(run.model.parameters(), 10.0)
            run.optimizer.step()

            clock = total.new_tensor([time.perf_counter() - began, len(interrupted)])
            shared = ranks.mean(torch.cat([torch.stack(list(terms.values())).detach(), clock]))
            *values, run.seconds, interruptions = shared.tolist()
            for name, value in zip(terms, values, strict=True):
                run.history[name].append(value)
            images_seen = (run.step - steps_before) * settings.batch_size
            bar.update(
                task,
                completed=run.progress,
                step=run.step,
                terms="  ".join(f"{name} {values[-1]:.3f}" for name, values in run.history.items()),
                speed=f"{images_seen / (run.seconds - seconds_before):.0f} images/s",
            )
    return run.progress == 1


def one_cycle(progress: float, warmup: float = 0.15) -> float:
    """Factor of the learning rate: up from 0.04 in a straight line, then down to 0 in a cosine."""
    if progress < warmup:
        return 0.04 + 0.96 * progress / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (progress - warmup) / (1 - warmup))


def batch(data: DetectionData, step: int, settings: Settings) -> tuple[list[Tensor], list[Target]]:
    """The images of a step and their targets: a function of step and seed, so a run can resume."""
    images, targets = [], []
    for place in ranks.own(range(step * settings.batch_size, (step + 1) * settings.batch_size)):
        epoch, index = divmod(place, len(data.train))
        rng = np.random.default_rng((settings.seed, epoch))
        order, mirrored = rng.permutation(len(data.train)), rng.random(len(data.train)) < 0.5
        image, target = data.train[int(order[index])]
        if data.flip and mirrored[index]:
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
        TextColumn("step {task.fields[step]}"),
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
        steps=run.step,
        seconds_training=round(run.seconds, 1),
        seconds_evaluation=round(time.perf_counter() - began, 1),
        images_per_second=round(run.step * settings.batch_size / run.seconds, 1),
        settings=asdict(settings),
    )
    (folder / "metrics.json").write_text(json.dumps(result.metrics, indent=2) + "\n")
    (folder / "config.yaml").write_text(yaml.safe_dump(criterion.config(), sort_keys=False))

    title = f"{Path(settings.config).stem} on {settings.data.split(':')[0]}"
    draw_losses(folder / "losses.png", run.history, title)
    pictured = np.linspace(0, len(data.test) - 1, min(PICTURED, len(data.test))).round().astype(int)
    images, targets = zip(*(data.test[index] for index in pictured), strict=True)
    found = [detections[index] for index in pictured]
    draw_detections(folder / "detections.png", images, targets, found, data.classes, title)
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
    metric = MeanAveragePrecision(
        backend="faster_coco_eval",
        extended_summary=True,
        sync_on_compute=False,  # one process has all detections
    )
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
