"""A training run: its settings, its state between two steps, and the checkpoint that keeps both."""

import re
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from data_files import DataError, quoted
from photos import Policy
from torch import nn
from torch.optim import Optimizer

CHECKPOINT = ("settings", "classes", "model", "optimizer", "history", "seconds")
"""What a checkpoint holds."""


@dataclass(frozen=True)
class Settings:
    """All that a run depends on.

    Attributes:
        config: YAML file that names the losses, see `config_path`.
        data: ``digits`` or photos in one of three formats, see `load_data`.
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


@dataclass
class Run:
    """A run between two steps: what a checkpoint holds."""

    settings: Settings
    classes: tuple[str, ...]
    model: nn.Module
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


def make_folder(path: Path) -> None:
    """Makes the folder of the results, before there is much to lose.

    Raises:
        OSError: If it cannot be made, or no file in it.
    """
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        pass


def save_checkpoint(run: Run) -> Path:
    """Writes all that a run needs to go on as if it had not stopped."""
    path = Path(run.settings.out) / "checkpoint.pt"
    state = {
        "settings": asdict(run.settings),
        "classes": run.classes,
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "history": run.history,
        "seconds": run.seconds,
    }
    unfinished = path.with_suffix(".part")  # so that no half checkpoint replaces a whole one
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, unfinished)
    return unfinished.replace(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote, on the CPU, whatever the device that it was written on.

    Raises:
        DataError: If the file is damaged, or another program's.
    """
    expected = "expected a checkpoint of this program"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile, pickle and PyTorch have their own each
        reason = re.split(r"\.\s|\n", str(error))[0] or type(error).__name__
        raise DataError(path, None, f"cannot be read ({reason}), {expected}") from None
    if not isinstance(state, dict):
        raise DataError(path, None, f"a {type(state).__name__}, {expected}")
    missing = [name for name in CHECKPOINT if name not in state]
    if missing:
        raise DataError(path, None, f"no {', '.join(missing)} in it, {expected}")
    names = {field.name for field in fields(Settings)}
    if not isinstance(state["settings"], dict) or state["settings"].keys() != names:
        raise DataError(path, "settings", f"not those of a run, {expected} as it is now")
    return state


def load_checkpoint(path: Path, run: Run) -> None:
    """Puts `run` where the checkpoint was written.

    Raises:
        DataError: If the checkpoint cannot be read, or is of other classes or another model.
    """
    state = read_checkpoint(path)
    if state["classes"] != run.classes:  # their number may be the same
        problem = f"{quoted(state['classes'])}, expected those of the data, {quoted(run.classes)}"
        raise DataError(path, "classes", problem)
    try:
        run.model.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.seconds = float(state["seconds"])
        fits = state["history"].keys() == run.history.keys()
    except Exception:  # what PyTorch raises depends on where the two differ
        fits = False
    if not fits:
        problem = "of another model, expected the one of the run's config and data as they are now"
        raise DataError(path, None, problem)
    run.history = state["history"]
