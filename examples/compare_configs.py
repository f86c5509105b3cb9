"""Trains a detector with each of several configs for the same time, and compares what they learned.

    python examples/compare_configs.py

trains a RetinaNet with L1 and with GIoU, FCOS, ATSS, GFL, YOLOv8 and YOLOX on scenes of handwritten
digits, each for two and a half minutes on a CPU. It prints a line for each and a table at the end.
Into ``--out`` go the table, comparison.md, one picture of what each finds in the same images,
detections.png, and in a folder for each config what train_detector.py writes.

Other configs are named behind the command. What a time limit gives depends on the machine and on
what else runs on it, and one seed is one draw: look at the steps too before you believe a
difference.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from compare_losses import prepare
from data_files import DataError
from detection_data import DATA_FORMS
from evaluation import Result
from figures import draw_detections
from image_sets import DetectionData
from messages import Parser, complain, console, print_anywhere
from rich.table import Table
from runs import Run, Settings
from train_detector import check_amounts, finish, pictured, train

from detloss.bench.report import markdown

CONFIGS = ("retinanet", "retinanet_giou", "fcos", "atss", "gfl", "yolov8", "yolox")
MINUTES = 2.5
"""Of training, so that all seven take less than twenty."""
COLUMNS = ("steps", "AP", "AP50", "AP75", "seconds")


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains with every config and compares; returns the exit status."""
    print_anywhere()
    try:
        prepared = prepare(parse(arguments))
        return compare(*prepared) if prepared else 2
    except (DataError, OSError) as error:  # a photo that was there before, or a full disk
        complain(error)
        return 2
    except KeyboardInterrupt:
        console.print("Stopped; a comparison starts over.")
        return 130


def compare(runs: dict[str, Run], data: DetectionData) -> int:
    """Trains and evaluates each run, one after the other; returns the exit status."""
    results: dict[str, Result] = {}
    for name, run in runs.items():
        if not train(run, data):
            console.print("Stopped; a comparison starts over.")
            return 130
        results[name] = finish(run, data)
        numbers = zip(COLUMNS, row(results[name]), strict=True)
        told = "  ".join(f"{column} {number}" for column, number in numbers)
        console.print(f"{name} ({head(run)}): {told}", soft_wrap=True)

    table = results_table(runs, results)
    console.print(table)
    out = Path(next(iter(runs.values())).settings.out).parent
    (out / "comparison.md").write_text(markdown(table) + "\n", encoding="utf-8")
    draw(out / "detections.png", results, data)
    console.print(f"Results are in {out}", soft_wrap=True)
    return 0


def parse(arguments: Sequence[str] | None) -> dict[str, Settings]:
    """The settings of each run by the name of its config; they differ in nothing else."""
    defaults = Settings()
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    configs = [Path("configs", f"{name}.yaml") for name in CONFIGS]
    parser.add_argument("configs", nargs="*", type=Path, default=configs, help="YAML files")
    parser.add_argument("--data", default=defaults.data, help=DATA_FORMS)
    parser.add_argument(
        "--time-limit", type=float, default=MINUTES, metavar="MINUTES", help="of each training"
    )
    parser.add_argument("--steps", type=int, help="of each training, if they take less time")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--device", default=defaults.device, help="such as cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("runs/configs"))
    options = vars(parser.parse_args(arguments))
    check_amounts(parser, options)
    configs, out = options.pop("configs"), options.pop("out")
    names = [path.stem for path in configs]
    if len(set(names)) < len(names):
        parser.error(f"configs must have different names, got {', '.join(names)}")
    return {
        path.stem: Settings(config=str(path), out=str(out / path.stem), **options)
        for path in configs
    }


def head(run: Run) -> str:
    """What kind of detector was trained."""
    return type(run.model).__name__


def row(result: Result) -> list[str]:
    """The numbers of a run, in the order of `COLUMNS`."""
    metrics = result.metrics
    seconds = metrics["seconds_training"] + metrics["seconds_evaluation"]
    precision = [f"{metrics[column]:.3f}" for column in ("AP", "AP50", "AP75")]
    return [str(metrics["steps"]), *precision, f"{seconds:.0f}"]


def results_table(runs: dict[str, Run], results: dict[str, Result]) -> Table:
    """A row a config."""
    settings = next(iter(runs.values())).settings
    table = Table(title=described(settings), title_justify="left")
    for column in ("config", "head"):
        table.add_column(column)
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for name, result in results.items():
        table.add_row(name, head(runs[name]), *row(result))
    return table


def described(settings: Settings) -> str:
    """What all runs have in common."""
    limits = [f"{settings.time_limit:g} minutes each"]
    limits += [f"at most {settings.steps} steps"] if settings.steps else []
    return f"{settings.data.split(':')[0]}, {', '.join(limits)}, seed {settings.seed}"


def draw(path: Path, results: dict[str, Result], data: DetectionData) -> None:
    """The ground truth of some test images, and below what each config finds there."""
    chosen = pictured(data)
    images, targets = zip(*(data.test[index] for index in chosen), strict=True)
    rows = {
        f"{name}: AP50 {result.metrics['AP50']:.3f}": [result.detections[i] for i in chosen]
        for name, result in results.items()
    }
    draw_detections(path, images, targets, rows, data.classes, "ground truth")


if __name__ == "__main__":
    sys.exit(main())
