"""Trains a small detector with the losses that a config names, and shows what it learned.

    python examples/train_detector.py --config configs/retinanet_giou.yaml

trains a RetinaNet on scenes of handwritten digits, which need no download. A config whose anchors
are points, such as configs/yolov8.yaml, trains a detector in the style of YOLOv8. ``--data
voc:DIR``, ``--data coco:IMAGES:ANNOTATIONS.json`` and ``--data yolo:DATA.yaml`` train on photos,
and ``--time-limit 15`` ends in time. Into ``--out`` go metrics.json, the resolved config, the loss
curves, a picture of detections beside the ground truth, and a checkpoint. Ctrl-C saves a checkpoint
too and says how to go on. A mistake in an option or a file is told in one line, and the exit status
is 2.

``torchrun --nproc-per-node 2 examples/train_detector.py ...`` shares each batch between two
processes, which learn what one would.

Beside other busy programs, run it with ``OMP_NUM_THREADS=1``: threads that wait for a core that
another program holds can make a step twenty times slower.
"""

import argparse
import copy
import json
import math
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, get_args

import numpy as np
import ranks
import torch
import yaml
from data_files import DataError
from detection_data import DATA_FORMS, load_data
from evaluation import Result, detect, evaluate
from figures import LEAST_SCORE, draw_detections, draw_losses
from image_sets import DetectionData, Target
from messages import Parser, complain, console, print_anywhere, report
from photos import Policy
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from runs import Run, Settings, load_checkpoint, make_folder, read_checkpoint, save_checkpoint
from small_retinanet import small_retinanet
from small_yolo import SmallYOLO
from torch import Tensor, nn
from torch.optim import AdamW

import detloss
from detloss.integrations.torchvision import use_loss

ROOT = Path(__file__).parents[1]
PICTURED = 5
"""Test images in a picture, where there are so many."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, evaluates and draws; returns the exit status."""
    print_anywhere()
    try:
        prepared = prepare(arguments)
        return run_to_the_end(*prepared) if prepared else 2
    except (DataError, OSError) as error:  # a photo that was there before, or a full disk
        complain(error)
        return 2
    except KeyboardInterrupt:  # before the first step, after the last, or for the second time
        console.print("Stopped.")
        return 130
    finally:
        ranks.leave()


def prepare(arguments: Sequence[str] | None) -> tuple[Run, DetectionData] | None:
    """The run of the command line before its next step, or None after telling what is wrong."""
    try:
        settings, resume = parse(arguments)
        ranks.join(settings.device)
        console.quiet = ranks.rank() > 0
        criterion = detloss.load_config(config_path(settings.config))
        if settings.batch_size % ranks.count():
            raise ValueError(
                f"--batch-size must be a multiple of the {ranks.count()} processes, "
                f"got {settings.batch_size}"
            )
        data = load_data(settings.data, seed=settings.seed, policy=settings.policy)
        run = start(settings, data, criterion)
        if resume is not None:
            load_checkpoint(resume, run)
        make_folder(Path(settings.out))
    except (OSError, ValueError) as error:
        complain(error)
        return None
    report(data, settings.policy)
    return run, data


def run_to_the_end(run: Run, data: DetectionData) -> int:
    """Trains, evaluates and draws; returns the exit status."""
    finished = train(run, data)
    if ranks.rank() > 0:
        return 0 if finished else 130
    checkpoint = save_checkpoint(run)
    if not finished:
        command = shlex.join([*ranks.launcher(), sys.argv[0], "--resume", str(checkpoint)])
        console.print(f"Stopped after step {run.step}. To go on:\n  {command}", soft_wrap=True)
        return 130
    print_result(finish(run, data).metrics)
    console.print(f"Results are in {run.settings.out}", soft_wrap=True)
    return 0


def parse(arguments: Sequence[str] | None) -> tuple[Settings, Path | None]:
    """The settings of the command line, or those of the run that it resumes.

    Raises:
        DataError: If the checkpoint to resume is none.
    """
    defaults = Settings()
    parser = Parser(
        description=(__doc__ or "").splitlines()[0],
        argument_default=argparse.SUPPRESS,  # so that what is not given can be told from a default
    )
    parser.add_argument("--config", help="YAML file that names the losses")
    parser.add_argument("--data", help=DATA_FORMS)
    parser.add_argument(
        "--policy", choices=get_args(Policy), help="what to do with bad boxes in the data"
    )
    parser.add_argument("--steps", type=int, help=f"{defaults.steps} unless a time limit is given")
    parser.add_argument("--time-limit", type=float, metavar="MINUTES", help="of training")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--device", help="such as cpu or cuda")
    parser.add_argument("--out", help="folder of the results")
    parser.add_argument(
        "--resume", type=Path, help="checkpoint to go on from, with no other option but --device"
    )
    given = vars(parser.parse_args(arguments))
    resume = given.pop("resume", None)
    if resume is not None:
        if not resume.is_file():
            parser.error(f"--resume: no checkpoint {resume}")
        extra = ", ".join(f"--{name.replace('_', '-')}" for name in given if name != "device")
        if extra:
            parser.error(f"--resume goes on with the settings of the run; leave out {extra}")
        return Settings(**read_checkpoint(resume)["settings"] | given), resume
    check_amounts(parser, given)
    if "time_limit" in given:
        given.setdefault("steps", None)
    return Settings(**given), None


def check_amounts(parser: Parser, given: Mapping[str, Any]) -> None:
    """Ends the program where a number of the command line is out of range."""
    for name in ("steps", "time_limit", "batch_size", "learning_rate"):
        if given.get(name) is not None and not 0 < given[name] < math.inf:
            parser.error(f"--{name.replace('_', '-')} must be positive, got {given[name]}")
    if not 0 <= given.get("seed", 0) < 2**63:
        parser.error(f"--seed must be from 0 to 2**63 - 1, got {given['seed']}")


def config_path(text: str) -> Path:
    """The file `text` names, from where the user is or else from the repository."""
    return Path(text) if Path(text).exists() else ROOT / text


def start(settings: Settings, data: DetectionData, criterion: detloss.DetectorLoss) -> Run:
    """A run before its first step."""
    torch.manual_seed(settings.seed)
    if ranks.count() > 1 and hasattr(criterion.normalizer, "sync"):
        criterion.normalizer.sync = True  # counts over all processes, as over a batch in one
    model = small_detector(data, criterion).to(settings.device)
    optimizer = AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=1e-4)
    history: dict[str, list[float]] = {name: [] for name in criterion.terms}
    return Run(settings, data.classes, model, optimizer, history)


def small_detector(data: DetectionData, criterion: detloss.DetectorLoss) -> nn.Module:
    """The model that a criterion is for: a RetinaNet for matched anchors, or a detector of points.

    Raises:
        ValueError: If neither can serve the criterion.
    """
    if isinstance(criterion, detloss.LayeredLoss):
        raise ValueError(f"a config without layers is needed, got {', '.join(criterion.layers)}")
    image, target = data.train[0]
    classes, image_size = len(data.classes), max(image.shape)
    reads = {term.reads for term in criterion.terms.values()}
    model: nn.Module
    if criterion.matcher.needs_sizes and reads == {"class_logits", "box_regression"}:
        model = small_retinanet(
            classes,
            anchor_sizes=data.anchor_sizes,
            aspect_ratios=data.aspect_ratios,
            image_size=image_size,
        )
        use_loss(model, criterion)
    else:
        model = SmallYOLO(classes, criterion, image_size=image_size)
    with torch.no_grad():  # of a copy, since a normalizer may remember
        copy.deepcopy(model)([image], [dict(target)])  # a part may ask for other levels
    return model


def train(run: Run, data: DetectionData, *, title: str = "") -> bool:
    """Trains to the last step or the time limit; returns False if the user interrupted it.

    With a title, the progress stands behind it and is gone at the end.
    """
    settings, seconds_before, steps_before = run.settings, run.seconds, run.step
    began = time.perf_counter() - seconds_before
    model = ranks.averaging(run.model.train())
    interruptions = 0.0
    with interruptible() as interrupted, progress_bar(title) as bar:
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


def progress_bar(title: str) -> Progress:
    """Steps, each term, images per second and the time that is left."""
    return Progress(
        *([TextColumn(title, markup=False)] if title else []),
        TextColumn("step {task.fields[step]}"),
        BarColumn(),
        TextColumn("{task.fields[terms]}"),
        TextColumn("[cyan]{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=console,
        transient=bool(title),
        disable=bool(title) and not console.is_terminal,  # where nothing can be taken back
    )


def finish(run: Run, data: DetectionData) -> Result:
    """Evaluates a trained run and writes its results."""
    settings, folder = run.settings, Path(run.settings.out)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    detections = detect(run.model, data.test, settings.batch_size, settings.device)
    result = evaluate(detections, data.test)
    result.metrics.update(
        steps=run.step,
        seconds_training=round(run.seconds, 1),
        seconds_evaluation=round(time.perf_counter() - began, 1),
        images_per_second=round(run.step * settings.batch_size / run.seconds, 1),
        settings=asdict(settings),
    )
    (folder / "metrics.json").write_text(json.dumps(result.metrics, indent=2) + "\n")
    config = run.model.criterion.config()
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    title = f"{Path(settings.config).stem} on {settings.data.split(':')[0]}"
    draw_losses(folder / "losses.png", run.history, title)
    chosen = pictured(data)
    images, targets = zip(*(data.test[index] for index in chosen), strict=True)
    rows = {f"detections with a score of at least {LEAST_SCORE:g}": [detections[i] for i in chosen]}
    title = f"{title}: ground truth"
    draw_detections(folder / "detections.png", images, targets, rows, data.classes, title)
    return result


def pictured(data: DetectionData) -> list[int]:
    """Test images for a picture, spread evenly over the test set."""
    places = np.linspace(0, len(data.test) - 1, min(PICTURED, len(data.test)))
    return [int(place) for place in places.round()]


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
