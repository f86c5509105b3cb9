"""Trains the same detector from the same seed with each config, and compares what it learned.

    python examples/compare_losses.py configs/retinanet.yaml configs/retinanet_ciou.yaml --steps 300

prints one table, AP, AP50, AP75 and seconds, and draws one figure, the average precision over the
IoU that a detection must reach. (The losses themselves cannot be compared: each has its own unit.)
One seed is one draw: repeat with another ``--seed`` before you believe a small difference.

    python examples/compare_losses.py --all

takes every loss of boxes and of classes in turn into configs/retinanet.yaml, 200 steps each, and
says of each whether it falls and stays finite, and how well the detector then finds. It prints a
line as each is done, and keeps the table in losses.md under ``--out``.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import detection_data
import ranks
from data_files import DataError
from evaluation import Result
from every_loss import train_every_loss
from figures import draw_comparison
from image_sets import DetectionData
from messages import Parser, complain, console, print_anywhere, report
from rich.table import Table
from runs import Run, Settings, make_folder
from train_detector import config_path, finish, start, train

import detloss

EVERY, EVERY_STEPS = Path("configs/retinanet.yaml"), 200
"""The config that every loss is tried in, and how long."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains with every config and compares; returns the exit status."""
    print_anywhere()
    try:
        settings, every = parse(arguments)
        prepared = prepare(settings)
        if prepared is None:
            return 2
        runs, data = prepared
        if every:
            return train_every_loss(*settings.values(), data)
        return compare(runs, data)
    except (DataError, OSError) as error:  # a photo that was there before, or a full disk
        complain(error)
        return 2
    except KeyboardInterrupt:
        console.print("Stopped; a comparison starts over.")
        return 130


def prepare(settings: dict[str, Settings]) -> tuple[dict[str, Run], DetectionData] | None:
    """The runs before their first step, and the data; None after telling what is wrong."""
    first = next(iter(settings.values()))
    try:
        ranks.check_device(first.device)
        for one in settings.values():
            make_folder(Path(one.out))
        data = detection_data.load_data(first.data, seed=first.seed, policy=first.policy)
        runs = {
            name: start(one, data, detloss.load_config(config_path(one.config)))
            for name, one in settings.items()
        }
    except (OSError, ValueError) as error:
        complain(error)
        return None
    report(data, first.policy)
    for index in range(len(data.train)):  # read once, so that the seconds are those of training
        data.train[index]
    return runs, data


def compare(runs: dict[str, Run], data: DetectionData) -> int:
    """Trains and evaluates each run, one after the other; returns the exit status."""
    results: dict[str, Result] = {}
    for name, run in runs.items():
        console.print(name, style="bold")
        if not train(run, data):
            console.print("Stopped; a comparison starts over.")
            return 130
        results[name] = finish(run, data)

    print_table(results)
    first = next(iter(runs.values())).settings
    out = Path(first.out).parent
    draw_comparison(
        out / "comparison.png",
        {name: result.precision for name, result in results.items()},
        next(iter(results.values())).thresholds,
        f"{first.data.split(':')[0]}, {first.steps} steps, seed {first.seed}",
    )
    console.print(f"Results are in {out}", soft_wrap=True)
    return 0


def parse(arguments: Sequence[str] | None) -> tuple[dict[str, Settings], bool]:
    """The settings of each run by the name of its config, and whether to try every loss in it.

    The settings differ in nothing but the config.
    """
    defaults = Settings()
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("configs", nargs="*", type=Path, help="YAML files that name the losses")
    parser.add_argument(
        "--all", action="store_true", help=f"instead of configs: each loss that fits into {EVERY}"
    )
    parser.add_argument("--data", default=defaults.data, help=detection_data.DATA_FORMS)
    parser.add_argument(
        "--steps", type=int, help=f"{defaults.steps}, or {EVERY_STEPS} of each loss with --all"
    )
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--device", default=defaults.device, help="such as cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("runs/comparison"))
    options = parser.parse_args(arguments)
    if options.all == bool(options.configs):
        parser.error("expected configs, or --all without them")
    if options.all:
        options.configs = [EVERY]
    if options.steps is None:
        options.steps = EVERY_STEPS if options.all else defaults.steps
    names = [path.stem for path in options.configs]
    if len(set(names)) < len(names):
        parser.error(f"configs must have different names, got {', '.join(names)}")
    if options.steps < 1:
        parser.error("--steps must be at least 1")
    if not 0 <= options.seed < 2**63:
        parser.error(f"--seed must be from 0 to 2**63 - 1, got {options.seed}")
    settings = {
        path.stem: Settings(
            config=str(path),
            data=options.data,
            steps=options.steps,
            seed=options.seed,
            device=options.device,
            out=str(options.out / path.stem),
        )
        for path in options.configs
    }
    return settings, options.all


def print_table(results: dict[str, Result]) -> None:
    """One row a config."""
    table = Table(title="test images")
    table.add_column("config")
    for column in ("AP", "AP50", "AP75", "seconds"):
        table.add_column(column, justify="right")
    for name, result in results.items():
        metrics = result.metrics
        seconds = metrics["seconds_training"] + metrics["seconds_evaluation"]
        row = [f"{metrics[column]:.3f}" for column in ("AP", "AP50", "AP75")]
        table.add_row(name, *row, f"{seconds:.0f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
