"""Cases of matching by predictions: the points of a batch of images to their ground truths.

Beside a peer that is installed stands the dense form in which these techniques are written down and
usually implemented: every point against every ground truth.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, one_hot

import detloss
from detloss.bench.cases.matching import as_indices, cells_along, objects
from detloss.bench.cases.runners import normal, optional
from detloss.bench.measure import Case, Run
from detloss.boxes import grid_points, paired_overlap
from detloss.matchers import Matches

STRIDES = (8, 16, 32)
CLASSES = 80
TASK_ALIGNED = {
    "type": "task_aligned",
    "topk": 10,
    "alpha": 0.5,
    "beta": 6.0,
    "overlap": "ciou",
    "convention": "ultralytics",
    "min_side": 16.0,
}
MATCHERS: dict[str, dict[str, Any]] = {
    "task_aligned": TASK_ALIGNED,
    "sim_ota": {"type": "sim_ota", "radius": 2.5, "convention": "mmdet"},
    "dynamic_soft_label": {"type": "dynamic_soft_label"},
}


def assignment(
    device: torch.device, scale: float, *, name: str, images: int, count: int, side: int = 640
) -> Case:
    """Matching of so many images with so many objects each, by predictions at every point."""
    side = side if scale == 1 else 128
    cells = [(count, count) for count in cells_along(side, STRIDES)]
    points, _ = grid_points(cells, STRIDES, device=device)
    truths = [objects(count, side, device, seed) for seed in range(images)]
    labels = [(torch.arange(count, device=device) + seed) % CLASSES for seed in range(images)]
    logits = normal(images, len(points), CLASSES, device=device).sub_(4)
    objectness = normal(images, len(points), 1, device=device, seed=2)[..., 0]
    boxes = _around(points, normal(images, len(points), 4, device=device, seed=1))
    matcher: Any = detloss.build_part("matcher", MATCHERS[name])
    given = {"class_logits": logits, "pred_boxes": boxes, "objectness": objectness}
    given = {key: value for key, value in given.items() if key in matcher.needs}

    def ours() -> list[Matches]:
        found: list[Matches] = matcher.batch([points] * images, truths, gt_labels=labels, **given)
        return found

    runners: dict[str, Run] = {"detloss": ours}
    stacked = torch.stack(truths), torch.stack(labels)
    if name == "task_aligned" and (theirs := _ultralytics(points, *stacked, logits, boxes)):
        runners["ultralytics"] = theirs
    if name != "task_aligned":
        dense = dense_sim_ota if name == "sim_ota" else dense_soft_label
        runners["dense"] = lambda: [
            dense(points, *of_image)
            for of_image in zip(truths, labels, logits, boxes, objectness, strict=True)
        ]
    title = f"{name} matching, {images} x {len(points):,} points, {count} boxes each"
    return Case(title, runners, boxes.nbytes, tensors=as_indices)


def _around(points: Tensor, noise: Tensor) -> Tensor:
    """Boxes (B, A, 4) with sides of about ten strides around each point."""
    centre = (points[:, :2] + points[:, 2:]) / 2
    reach = noise.div_(4).exp_() * 5 * (points[:, 2:] - points[:, :2])[:, [0, 1, 0, 1]]
    return torch.cat([centre - reach[..., :2], centre + reach[..., 2:]], -1)


def _ultralytics(
    points: Tensor, truths: Tensor, labels: Tensor, logits: Tensor, boxes: Tensor
) -> Run | None:
    """Ultralytics' assigner with the same numbers, or None where it is not installed."""
    module = optional("ultralytics.utils.tal")
    if not module:
        return None
    assigner = module.TaskAlignedAssigner(
        topk=10, num_classes=CLASSES, alpha=0.5, beta=6.0, stride=list(STRIDES)
    )
    centres = (points[:, :2] + points[:, 2:]) / 2
    present = torch.ones_like(labels, dtype=torch.bool)[..., None]

    def run() -> list[Tensor]:
        scores = logits.sigmoid()
        *_, taken, index = assigner(scores, boxes, centres, labels[..., None], truths, present)
        return list(torch.where(taken.bool(), index, -1))

    return run


def dense_sim_ota(
    points: Tensor,
    truths: Tensor,
    labels: Tensor,
    logits: Tensor,
    boxes: Tensor,
    objectness: Tensor,
) -> Tensor:
    """(A,) the ground truth of each point by SimOTA as mmdetection has it, -1 for none."""
    overlap = _overlaps(boxes, truths)
    inside, near = _inside(points, truths), _near(points, truths, 2.5)
    q = (
        (logits.sigmoid() * objectness.sigmoid()[:, None])
        .sqrt()[:, None]
        .expand(-1, len(truths), -1)
    )
    target = one_hot(labels, CLASSES).to(q.dtype).expand_as(q)
    cost = binary_cross_entropy(q, target, reduction="none").sum(-1) - 3 * (overlap + 1e-7).log()
    cost = cost + 1e5 * ~(inside & near)
    return _dynamic_k(cost, overlap, (inside | near).any(1), 10)


def dense_soft_label(
    points: Tensor,
    truths: Tensor,
    labels: Tensor,
    logits: Tensor,
    boxes: Tensor,
    objectness: Tensor,
) -> Tensor:
    """(A,) the ground truth of each point by dynamic soft labels, -1 for none."""
    overlap = _overlaps(boxes, truths)
    p = logits.sigmoid()[:, None].expand(-1, len(truths), -1)
    target = one_hot(labels, CLASSES) * overlap[..., None]
    entropy = binary_cross_entropy(p, target, reduction="none")
    cost = (entropy * (target - p).square()).sum(-1) - 3 * (overlap + 1e-7).log()
    centre, of_truth = points[:, None, :2] + points[:, None, 2:], truths[:, :2] + truths[:, 2:]
    distance = (centre - of_truth).norm(dim=-1) / 2 / (points[:, 2] - points[:, 0])[:, None]
    return _dynamic_k(cost + 10 ** (distance - 3), overlap, _inside(points, truths).any(1), 13)


def _dynamic_k(cost: Tensor, overlap: Tensor, candidates: Tensor, topk: int) -> Tensor:
    """(A,) by costs and overlaps (A, M): each ground truth its k cheapest candidates."""
    cost = torch.where(candidates[:, None], cost, torch.inf)
    best = torch.where(candidates[:, None], overlap, 0).topk(topk, dim=0).values
    counts = best.sum(0).int().clamp(min=1)
    matched = torch.zeros_like(cost, dtype=torch.bool)
    for truth, count in enumerate(counts.tolist()):
        matched[cost[:, truth].topk(count, largest=False).indices, truth] = True
    several = matched.sum(1) > 1
    matched[several] = False
    matched[several, cost[several].argmin(1)] = True
    return torch.where(matched.any(1), matched.int().argmax(1), -1)


def _overlaps(boxes: Tensor, truths: Tensor) -> Tensor:
    """(A, M)."""
    shape = (len(boxes), len(truths), 4)
    return paired_overlap(boxes[:, None].expand(shape), truths.expand(shape))


def _inside(points: Tensor, truths: Tensor) -> Tensor:
    """(A, M) bool, whether the point lies inside."""
    centre = ((points[:, :2] + points[:, 2:]) / 2)[:, None]
    return torch.cat([centre - truths[:, :2], truths[:, 2:] - centre], -1).amin(-1) > 0


def _near(points: Tensor, truths: Tensor, radius: float) -> Tensor:
    """(A, M) bool, whether the point is so many strides from the centre at most, along x and y."""
    centre = (points[:, :2] + points[:, 2:])[:, None] / 2 - (truths[:, :2] + truths[:, 2:]) / 2
    return centre.abs().amax(-1) < radius * (points[:, 2] - points[:, 0])[:, None]
