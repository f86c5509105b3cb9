"""The pictures that the examples draw."""

import warnings
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

CURVES = ("#2f6fd0", "#e0662b", "#2a9d6f", "#a04fc0", "#c2344f", "#7a8490")
BOXES = (
    *("#5aa9ff", "#ffa13d", "#53dd8c", "#ff6b6b", "#b99bff"),
    *("#ffd84d", "#ff86c8", "#37d5c8", "#c6ea5c", "#f2b8a0"),
)
INK, FAINT = "#22272e", "#8a929c"
LEAST_SCORE = 0.3
"""Of a detection that is drawn."""
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
    "text.parse_math": False,  # a class may have a dollar in its name
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
        for (name, values), colour in zip(history.items(), cycle(CURVES)):
            steps = np.arange(1, len(values) + 1)
            axes.plot(steps, values, color=colour, alpha=0.2, linewidth=0.8)
            axes.plot(steps, running_mean(values), color=colour, linewidth=2, label=name)
        axes.set(yscale="log", xlabel="step", ylabel="weighted loss", title=drawable(title))
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.01)
        axes.grid(axis="y", alpha=0.2)
        axes.legend(loc="upper right")
        save(figure, path)


def running_mean(values: Sequence[float]) -> npt.NDArray[np.float64]:
    """Mean over the 5 % of the steps around each step, fewer at both ends."""
    reach = len(values) // 40
    total = np.concatenate([[0.0], np.cumsum(values)])
    steps = np.arange(len(values))
    start, stop = np.maximum(steps - reach, 0), np.minimum(steps + reach + 1, len(values))
    mean: npt.NDArray[np.float64] = (total[stop] - total[start]) / (stop - start)
    return mean


def draw_detections(
    path: Path,
    images: Sequence[Tensor],
    targets: Sequence[Mapping[str, Tensor]],
    detections: Mapping[str, Sequence[Mapping[str, Tensor]]],
    classes: Sequence[str],
    title: str,
) -> None:
    """The ground truth of some images, and below it rows of what was found in them.

    Args:
        path: The PNG to write.
        images: Images (3, H, W) in [0, 1].
        targets: For each its "boxes", "labels" and "ignore".
        detections: Title of a row -> for each image its "boxes", "labels" and "scores". Those that
            score less than `LEAST_SCORE` are not drawn.
        classes: Name of each label.
        title: Of the row of ground truths.
    """
    with plt.style.context(STYLE):
        height, width = images[0].shape[-2:]
        inches = 0.22 * width**0.5  # a photo wider than a scene, though not in proportion
        count = 1 + len(detections)
        figure, rows = plt.subplots(
            count,
            len(images),
            figsize=(inches * len(images), count * (inches * height / width + 0.3)),
            layout="constrained",
            squeeze=False,
        )
        for axes, image in zip(rows.T, images, strict=True):
            for of_row in axes:
                show(of_row, image)
        for axes, truth in zip(rows[0], targets, strict=True):
            for box, label, ignore in zip(
                truth["boxes"], truth["labels"].tolist(), truth["ignore"].tolist(), strict=True
            ):
                draw_box(axes, box, label, classes[label], dashed=ignore)
        for of_row, found_in_images in zip(rows[1:], detections.values(), strict=True):
            for axes, found in zip(of_row, found_in_images, strict=True):
                for place in found["scores"].argsort():  # the best last, on top
                    label, score = int(found["labels"][place]), float(found["scores"][place])
                    if score >= LEAST_SCORE:
                        text = f"{classes[label]} {score:.2f}"
                        draw_box(axes, found["boxes"][place], label, text)
        for axes, name in zip(rows[:, 0], (title, *detections), strict=True):
            axes.set_title(drawable(name))
        save(figure, path)


def show(axes: Axes, image: Tensor) -> None:
    """An image (3, H, W) without axes."""
    axes.imshow(image.permute(1, 2, 0).numpy())
    axes.set_axis_off()


def draw_box(axes: Axes, box: Tensor, label: int, text: str, *, dashed: bool = False) -> None:
    """A box in its class's colour, with its text at the corner where there is room."""
    x1, y1, x2, y2 = box.tolist()
    colour = BOXES[label % len(BOXES)]
    outline = withStroke(linewidth=3, foreground=INK, alpha=0.6)  # seen on any background
    axes.add_patch(
        Rectangle(
            (x1, y1),
            x2 - x1,
            y2 - y1,
            fill=False,
            edgecolor=colour,
            linewidth=1.6,
            linestyle="--" if dashed else "-",
            path_effects=[outline],
        )
    )
    above, right = y1 > axes.get_ylim()[0] * 0.08, x1 > axes.get_xlim()[1] * 0.7
    axes.text(
        x2 if right else x1,
        y1 if above else y2,
        drawable(text),
        color=INK,
        fontsize=6.5,
        horizontalalignment="right" if right else "left",
        verticalalignment="bottom" if above else "top",
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
        in_layout=False,
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
        for (name, values), colour in zip(precision.items(), cycle(CURVES)):
            label = drawable(f"{name}: AP {np.mean(values):.3f}")
            axes.plot(thresholds, values, color=colour, linewidth=2, marker="o", label=label)
        axes.set(
            xlabel="IoU that counts as found", ylabel="average precision", title=drawable(title)
        )
        axes.set_ylim(0, 1)
        axes.grid(axis="y", alpha=0.2)
        axes.legend(loc="lower left")
        save(figure, path)


def drawable(text: str) -> str:
    """`text` with question marks where it has no letters, as a name of another locale has."""
    return text.encode("utf-8", "replace").decode()


def save(figure: Figure, path: Path) -> None:
    """Writes the figure and frees it; a letter that the font lacks is a box, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure.savefig(path, dpi=150, facecolor="white")
    plt.close(figure)
