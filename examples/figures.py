"""The pictures that the examples draw."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

COLOURS = plt.get_cmap("tab10").colors
INK, FAINT = "#22272e", "#8a929c"
STYLE = {
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "font.size": 10,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
}


def draw_losses(path: Path, history: Mapping[str, Sequence[float]], title: str) -> None:
    """Each term over the steps: every step faint, and its running mean.

    Args:
        path: The PNG to write.
        history: Term -> its weighted value in each step.
        title: What was trained with what.
    """
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
        for (name, values), colour in zip(history.items(), COLOURS, strict=False):
            steps = np.arange(1, len(values) + 1)
            axes.plot(steps, values, color=colour, alpha=0.2, linewidth=0.8)
            axes.plot(steps, running_mean(values), color=colour, linewidth=2, label=name)
        axes.set(yscale="log", xlabel="step", ylabel="loss (weighted term)", title=title)
        axes.grid(axis="y", alpha=0.2)
        axes.legend(loc="upper right")
        save(figure, path)


def running_mean(values: Sequence[float]) -> np.ndarray:
    """Mean over the 5 % of the steps around each step, fewer at both ends."""
    reach = len(values) // 40
    total = np.concatenate([[0.0], np.cumsum(values)])
    steps = np.arange(len(values))
    start, stop = np.maximum(steps - reach, 0), np.minimum(steps + reach + 1, len(values))
    return (total[stop] - total[start]) / (stop - start)


def draw_detections(
    path: Path,
    images: Sequence[Tensor],
    targets: Sequence[Mapping[str, Tensor]],
    detections: Sequence[Mapping[str, Tensor]],
    classes: Sequence[str],
    *,
    min_score: float = 0.4,
) -> None:
    """For each image its ground truth above its detections.

    Args:
        path: The PNG to write.
        images: Images (3, H, W) in [0, 1].
        targets: For each its "boxes", "labels" and "ignore".
        detections: For each its "boxes", "labels" and "scores".
        classes: Name of each label.
        min_score: Detections below are not drawn.
    """
    with plt.style.context(STYLE):
        figure, rows = plt.subplots(
            2, len(images), figsize=(2.5 * len(images), 5.4), layout="constrained", squeeze=False
        )
        for column, image in enumerate(images):
            truth, found = targets[column], detections[column]
            show(rows[0, column], image)
            for box, label, ignore in zip(
                truth["boxes"], truth["labels"].tolist(), truth["ignore"].tolist(), strict=True
            ):
                draw_box(rows[0, column], box, label, classes[label], dashed=ignore)
            show(rows[1, column], image)
            for box, label, score in zip(
                found["boxes"], found["labels"].tolist(), found["scores"].tolist(), strict=True
            ):
                if score >= min_score:
                    draw_box(rows[1, column], box, label, f"{classes[label]} {score:.2f}")
        rows[0, 0].set_title("ground truth")
        rows[1, 0].set_title(f"detections with a score of at least {min_score:g}")
        save(figure, path)


def show(axes: Axes, image: Tensor) -> None:
    """An image (3, H, W) without axes."""
    axes.imshow(image.permute(1, 2, 0).numpy())
    axes.set_axis_off()


def draw_box(axes: Axes, box: Tensor, label: int, text: str, *, dashed: bool = False) -> None:
    """A box in its class's colour, with its text on top where there is room, else below."""
    x1, y1, x2, y2 = box.tolist()
    colour = COLOURS[label % len(COLOURS)]
    style = "--" if dashed else "-"
    axes.add_patch(
        Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=colour, lw=1.6, ls=style)
    )
    above = y1 > axes.get_ylim()[0] * 0.08
    axes.text(
        x1,
        y1 if above else y2,
        text,
        color="white",
        fontsize=7,
        verticalalignment="bottom" if above else "top",
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 1},
    )


def draw_comparison(
    path: Path, precision: Mapping[str, Sequence[float]], thresholds: Sequence[float], title: str
) -> None:
    """Average precision over the IoU that a detection must reach, one curve a config.

    Args:
        path: The PNG to write.
        precision: Config -> its average precision at each threshold.
        thresholds: IoU thresholds.
        title: What was trained, and for how long.
    """
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
        for (name, values), colour in zip(precision.items(), COLOURS, strict=False):
            label = f"{name}: AP {np.mean(values):.3f}"
            axes.plot(thresholds, values, color=colour, linewidth=2, marker="o", label=label)
        axes.set(xlabel="IoU that counts as found", ylabel="average precision", title=title)
        axes.set_ylim(0, 1)
        axes.grid(axis="y", alpha=0.2)
        axes.legend(loc="lower left")
        save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Writes the figure and frees it."""
    figure.savefig(path, dpi=150, facecolor="white")
    plt.close(figure)
