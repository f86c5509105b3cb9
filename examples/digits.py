"""Scenes of handwritten digits: a data set that needs no download."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from image_sets import DetectionData, Target, make_target
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import interpolate

Array = npt.NDArray[np.float32]


def digit_scenes(*, seed: int, train: int = 4096, test: int = 256) -> DetectionData:
    """Scenes of scikit-learn's 1,797 digits; the last fifth of them appears in test scenes only."""
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)
    split = len(images) * 4 // 5
    return DetectionData(
        classes=tuple(str(name) for name in digits.target_names),
        train=DigitScenes(images[:split], digits.target[:split], count=train, seed=(0, seed)),
        test=DigitScenes(images[split:], digits.target[split:], count=test, seed=(1, 0)),
        anchor_sizes=((13.0, 18.0), (25.0, 35.0)),
        aspect_ratios=(1.4,),
        flip=False,
    )


class DigitScenes:
    """Scenes of one to six digits on a tinted, uneven background, composed when first asked for.

    Args:
        digits: Pool of digits (N, 8, 8) in [0, 1].
        labels: Their labels (N,).
        count: Number of scenes.
        seed: Together with its index, all that a scene depends on.
    """

    size = 128
    most_digits = 6
    heights = (18.0, 48.0)

    def __init__(
        self, digits: Array, labels: npt.NDArray[np.int64], *, count: int, seed: Sequence[int]
    ) -> None:
        self.digits = digits
        self.labels = labels
        self.count = count
        self.seed = tuple(seed)
        self._scene = lru_cache(maxsize=None)(self._compose)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        pixels, target = self._scene(index)
        return pixels.float() / 255, target

    def _compose(self, index: int) -> tuple[Tensor, Target]:
        """Pixels (3, H, W) uint8, few enough to be kept, and their target."""
        rng = np.random.default_rng((*self.seed, index))
        brightness = rng.uniform(0.2, 0.9)
        scene = background(rng, self.size, brightness)
        boxes: list[tuple[int, int, int, int]] = []
        labels: list[int] = []
        for _ in range(rng.integers(1, self.most_digits + 1)):
            chosen = rng.integers(len(self.digits))
            low, high = np.log(self.heights)
            shape = stamp(self.digits[chosen], height=np.exp(rng.uniform(low, high)))
            box = free_place(rng, shape.shape, boxes, self.size)
            if box is None:
                continue
            x1, y1, x2, y2 = box
            paint = ink(rng, brightness)
            scene[y1:y2, x1:x2] += shape[..., None] * (paint - scene[y1:y2, x1:x2])
            boxes.append(box)
            labels.append(int(self.labels[chosen]))
        pixels = (torch.from_numpy(scene).permute(2, 0, 1).clamp(0, 1) * 255).round().byte()
        return pixels.contiguous(), make_target(boxes, labels, [False] * len(boxes))


def background(rng: np.random.Generator, size: int, brightness: float) -> Array:
    """Uneven tint (size, size, 3): a few random colours blurred into each other, and grain."""
    light, tint = rng.normal(0, 0.06, (1, 1, 4, 4)), rng.normal(0, 0.03, (1, 3, 4, 4))
    patches = torch.from_numpy((brightness + light + tint).astype(np.float32))
    blurred = interpolate(patches, (size, size), mode="bicubic")
    grain = rng.normal(0, 0.015, (size, size, 1)).astype(np.float32)
    return blurred[0].permute(1, 2, 0).numpy() + grain


def ink(rng: np.random.Generator, brightness: float) -> Array:
    """Colour (3,) that stands out from a background: lighter on a dark one, darker on a light."""
    contrast = rng.uniform(0.3, 0.6) * (1 if brightness < 0.5 else -1)
    return (brightness + contrast + rng.normal(0, 0.1, 3)).clip(0, 1).astype(np.float32)


def stamp(digit: Array, *, height: float) -> Array:
    """Opacity (H, W) of a digit whose 8 rows span `height` pixels, cropped to what is visible."""
    padded = torch.from_numpy(np.pad(digit, 1))
    size = round(height * len(padded) / len(digit))
    smooth = interpolate(padded[None, None], (size, size), mode="bicubic")
    opacity: Array = ((smooth[0, 0] - 0.35) / 0.3).clamp(0, 1).numpy()
    rows = np.nonzero(opacity.max(axis=1) >= 0.5)[0]
    columns = np.nonzero(opacity.max(axis=0) >= 0.5)[0]
    return opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def free_place(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    taken: Iterable[tuple[int, int, int, int]],
    size: int,
    tries: int = 20,
) -> tuple[int, int, int, int] | None:
    """A random box of `shape` (height, width) that overlaps none of `taken`, or None."""
    height, width = shape
    for _ in range(tries):
        x1, y1 = int(rng.integers(size - width)), int(rng.integers(size - height))
        x2, y2 = x1 + width, y1 + height
        if all(x2 <= a1 or a2 <= x1 or y2 <= b1 or b2 <= y1 for a1, b1, a2, b2 in taken):
            return x1, y1, x2, y2
    return None
