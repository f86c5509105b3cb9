"""Overlaps of one pair of boxes, exactly: written from the papers, no code of detloss in it.

A float is a rational number, so on `fractions.Fraction` nothing is rounded. What is not rational,
an arctangent or a logarithm, has 50 digits, by `REALS`. A box is a tuple of four floats or
Fractions.

The exact form of a box loss stands in the test file of the loss, see `reference_of`.
"""

import importlib.util
import math
from fractions import Fraction
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace

import mpmath
import torch

TESTS = Path(__file__).parent
REALS = mpmath.mp.clone()
REALS.dps = 50


@cache
def golden_pairs(dtype=torch.float64):
    """Two tensors (10000, 4) of well-formed boxes, no side below 1e-3."""
    generator = torch.Generator().manual_seed(0)

    def boxes(sides, spread, origin):
        corner, growth = torch.rand(2, 1000, 2, generator=generator, dtype=torch.float64)
        corner = origin + spread * corner
        return torch.cat([corner, corner + torch.tensor(sides) * (0.5 + growth)], dim=1)

    def grid():
        corner, side = torch.randint(0, 4, (2, 1000, 2), generator=generator).double()
        return torch.cat([corner, corner + side + 1], dim=1)

    mixture = [
        ((10, 10), (10, 10), 10, 0),  # overlapping, for the most part
        ((2, 2), (20, 20), 20, 0),  # nested, crossing or apart
        ((1, 1), (1, 1), 1e4, 0),  # far from each other
        ((10, 10), (10, 10), 20, 1e4),  # far from the origin
        ((1000, 1), (1000, 1), 2, 0),  # thin, one along the other
        ((2, 2e-3), (2e-3, 2), 2, 0),  # thin, one across the other
        ((1e-2, 1e-2), (1e-2, 1e-2), 1e-2, 0),  # small
        ((1e5, 1e5), (1e5, 1e5), 1e5, 0),  # large
        ((1e-2, 1e-2), (1e5, 1e5), 1, 0),  # small against large
    ]
    pairs = [(boxes(a, *place), boxes(b, *place)) for a, b, *place in mixture]
    pairs.append((grid(), grid()))  # identical, aligned, touching: every kind of tie
    return [torch.cat(side).to(dtype) for side in zip(*pairs, strict=True)]


def golden_inverted_pairs(dtype=torch.float64):
    """As `golden_pairs`, (334, 4), with the first boxes inverted in x, in y or in both."""
    first, second = (boxes[::30] for boxes in golden_pairs(dtype))
    orders = torch.tensor([[2, 1, 0, 3], [0, 3, 2, 1], [2, 3, 0, 1]])
    return first.gather(1, orders[torch.arange(len(first)) % 3]), second


@cache
def golden_bins(dtype=torch.float64, bins=6):
    """Logits (400, 4, bins) and distances (400, 4) in bins, whole ones and the ends among them."""
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor([0.0, 1.0, 10.0, 100.0]).repeat(100)[:, None, None]
    logits = size * torch.randn(400, 4, bins, generator=generator, dtype=torch.float64)
    distances = (bins - 1) * torch.rand(400, 4, generator=generator, dtype=torch.float64)
    distances[::3] = distances[::3].round()
    return logits.to(dtype), distances.to(dtype)


def rows(*tensors):
    """The rows of (N, 4) tensors side by side, as tuples of floats."""
    return list(zip(*(map(tuple, tensor.tolist()) for tensor in tensors), strict=True))


def table(function, pairs, **options):
    """`function` of each pair, rounded once, to float64."""
    return torch.tensor([float(function(*pair, **options)) for pair in pairs], dtype=torch.float64)


def real(number):
    numerator, denominator = number.as_integer_ratio()
    return REALS.mpf(numerator) / denominator


def whole(numbers):
    """Integers in the ratios of `numbers`, and by how much they are larger."""
    ratios = [number.as_integer_ratio() for number in numbers]
    factor = math.lcm(*(denominator for _, denominator in ratios))
    return [numerator * (factor // denominator) for numerator, denominator in ratios], factor


@cache
def axes(a, b):
    """Both boxes along x and both along y, in a unit that makes every corner a whole number.

    No measure changes with the unit. An inverted box collapses onto its first corner.
    """
    (ax1, ay1, ax2, ay2, bx1, by1, bx2, by2), _ = whole(a + b)
    along_x = (ax1, max(ax1, ax2)), (bx1, max(bx1, bx2))
    along_y = (ay1, max(ay1, ay2)), (by1, max(by1, by2))
    return along_x, along_y


def cut(first, second):
    """The parts of the hull of two intervals: length, and whether inside the first, the second."""
    for start, end in pairwise(sorted(first + second)):
        yield end - start, *(low <= start and end <= high for low, high in (first, second))


@cache
def areas(a, b):
    """Of the first box, the intersection, the union and the hull.

    The sides of both boxes cut their hull into nine cells, each wholly inside or outside of either
    box: every area is a sum of cells.
    """
    area = shared = union = hull = 0
    strips = (cut(*both) for both in axes(a, b))
    for (width, x_in_a, x_in_b), (height, y_in_a, y_in_b) in product(*strips):
        cell, in_a, in_b = width * height, x_in_a and y_in_a, x_in_b and y_in_b
        area += cell * in_a
        shared += cell * (in_a and in_b)
        union += cell * (in_a or in_b)
        hull += cell
    return area, shared, union, hull


@cache
def lengths(a, b):
    """Along x and along y, in the unit of the boxes: side of the first box, of the second, from the
    centre of the second to that of the first, and side of the hull.
    """
    _, factor = whole(a + b)
    found = []
    for (start, end), (true_start, true_end) in axes(a, b):
        numbers = (
            2 * (end - start),
            2 * (true_end - true_start),
            start + end - true_start - true_end,
            2 * (max(end, true_end) - min(start, true_start)),
        )
        found.append(tuple(Fraction(number, 2 * factor) for number in numbers))
    return found


def iou_of_lengths(*axes):
    """IoU, from side, true side and distance of the centres along each axis."""
    shared = area = true_area = 1
    for side, true_side, offset in axes:
        area, true_area = area * side, true_area * true_side
        shared *= max(0, min(side, true_side, (side + true_side) / 2 - abs(offset)))
    return shared / (area + true_area - shared)


def iou(a, b):
    _, shared, union, _ = areas(a, b)
    return Fraction(shared, union)


def iof(a, b):
    area, shared, _, _ = areas(a, b)
    return Fraction(shared, area) if area else 0


def giou(a, b):
    """GIoU paper, Algorithm 1: less the share of the hull that neither box covers."""
    _, _, union, hull = areas(a, b)
    return iou(a, b) - Fraction(hull - union, hull)


@cache
def diou(a, b):
    """DIoU paper, equation 7: less squared distance of the centres over squared diagonal."""
    distance = diagonal = 0
    for first, second in axes(a, b):
        low, *_, high = sorted(first + second)
        diagonal += (high - low) ** 2
        distance += (sum(first) - sum(second)) ** 2  # twice the distance, squared
    return iou(a, b) - Fraction(distance, 4 * diagonal)


@cache
def aspect_difference(a, b):
    """DIoU paper, equation 9: v of CIoU; a box without height has the angle pi / 2.

    A second box that is a point counts as a square, a first one as a vertical line.
    """
    sides, true_sides = (
        [end - start for start, end in box] for box in zip(*axes(a, b), strict=True)
    )
    angle = REALS.atan2(*sides)
    true_angle = REALS.atan2(*true_sides) if any(true_sides) else REALS.pi / 4
    return 4 / REALS.pi**2 * (true_angle - angle) ** 2


def trade_off(a, b):
    """DIoU paper, equation 11: alpha of CIoU; 0 for boxes of one shape, even identical ones."""
    v = aspect_difference(a, b)
    return v / (real(1 - iou(a, b)) + v) if v else 0


@cache
def ciou(a, b, alpha=None):
    """DIoU paper, equation 10; `alpha` can be held, as it is for the gradient."""
    alpha = trade_off(a, b) if alpha is None else alpha
    return real(diou(a, b)) - alpha * aspect_difference(a, b)


def penalties(member, a, b, alpha=None):
    """What a loss adds to ``1 - IoU``, each on its own, as reals; alpha of "ciou" may be held."""
    found = []
    if member == "giou":
        found.append(real(iou(a, b) - giou(a, b)))
    if member in ("diou", "ciou"):
        found.append(real(iou(a, b) - diou(a, b)))
    if member == "ciou":
        alpha = trade_off(a, b) if alpha is None else alpha
        found.append(alpha * aspect_difference(a, b))
    return found


def at_least_1_if_inverted(loss, *boxes):
    """An inverted box must not score as a good one."""
    inverted = any(x2 < x1 or y2 < y1 for x1, y1, x2, y2 in boxes)
    return max(loss, 1) if inverted else loss


OVERLAPS = {"iou": iou, "iof": iof, "giou": giou, "diou": diou, "ciou": ciou}


@cache
def distances(pred, target):
    """``|p - t|`` of each coordinate."""
    numbers, factor = whole(pred + target)
    return [Fraction(abs(p - t), factor) for p, t in zip(numbers[:4], numbers[4:], strict=True)]


@cache
def reference_of(cls):
    """What the test file of a box loss says of it.

    - `loss`: ``exact_loss(pred, target, **options)`` of one row, a number;
    - `options`: ``EXACT_OPTIONS``, the options to try, default the constructor's;
    - `constants`: ``exact_constants(pred, target)``, the keywords of `exact_loss` that the gradient
      holds as they are, default none;
    - `overlap`: ``exact_overlap(a, b)``, the kind of overlap of its name, default 1 less the loss;
    - `lengths`: ``EXACT_LENGTHS``, the options that are lengths in the unit of the boxes.
    """
    stem = cls.__module__.rpartition(".")[2]
    path = TESTS / "regression" / f"test_{stem}.py"
    names = {}
    if path.exists():
        spec = importlib.util.spec_from_file_location(f"exact_{stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        names = vars(module)

    def missing(*args, **options):
        row = "four tuples of logits and four distances" if cls.space == "bins" else "two tuples"
        raise NotImplementedError(
            f"box loss {cls.type_name!r} has no exact form to be held against: write "
            f"`def exact_loss(pred, target, ...)` in tests/regression/test_{stem}.py, with the "
            f"options of the loss: from its paper, the loss of one row, {row} of floats or "
            "Fractions, by the tools in tests/exact.py"
        )

    return SimpleNamespace(
        loss=names.get("exact_loss", missing),
        options=names.get("EXACT_OPTIONS", [{}]),
        constants=names.get("exact_constants"),
        overlap=names.get("exact_overlap", lambda a, b: 1 - names.get("exact_loss", missing)(a, b)),
        lengths=names.get("EXACT_LENGTHS", ()),
    )


def gradient(loss, pred, target, **options):
    """D loss / d p of each number of `pred`, by central differences, to 20 digits.

    Exact numbers allow a step so small that its square, the error, is nothing beside a side's.
    """
    step = Fraction(1, 10**15)
    gradients = []
    for i in range(len(pred)):
        down, up = (
            loss((*pred[:i], Fraction(pred[i]) + move, *pred[i + 1 :]), target, **options)
            for move in (-step, step)
        )
        gradients.append(float((up - down) / (2 * step)))
    return gradients
