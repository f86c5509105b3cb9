"""What is measured: the losses at the sizes of known detectors, matching, and a whole step."""

import contextlib
import importlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

import detloss
from detloss.bench.measure import Case, Run
from detloss.classification import sigmoid_focal_loss
from detloss.kernels import plain_formulas
from detloss.registry import CLASSIFICATION
from detloss.regression import ciou_loss, diou_loss, giou_loss

Build = Callable[[torch.device, float], Case]
"""Makes a case on a device, its rows scaled by a factor."""

RETINANET, YOLO, DETR = (2 * 76_725, 80), (16 * 8_400, 80), (2 * 300, 91)
"""Rows and classes of the logits of a batch."""


def optional(module: str) -> Any:
    """The module, or None where it is not installed or does not import."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # some greet the user; stdout may be JSON
            return importlib.import_module(module)
    except Exception:  # a peer may fail in any way; then it is not compared
        return None


def forward_backward(loss: Callable[[Tensor], Tensor], data: Tensor) -> Run:
    """The summed loss of predictions and its gradient."""

    def run() -> Sequence[Tensor]:
        pred = data.detach().requires_grad_()
        value = loss(pred)
        value.backward()  # type: ignore[no-untyped-call]
        assert pred.grad is not None
        return value, pred.grad

    return run


# --- Classification -------------------------------------------------------------------------------


def logits_and_labels(
    rows: int, classes: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Logits of an early training step; one label in 1,000 an object, one in 100 ignored."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, classes, generator=generator) * 2 - 4
    labels = torch.full((rows,), classes)
    chosen = torch.randperm(rows, generator=generator)
    objects, ignored = max(rows // 1000, 1), rows // 100
    labels[chosen[:objects]] = torch.arange(objects) % classes
    labels[chosen[objects : objects + ignored]] = -1
    return logits.to(device, dtype), labels.to(device)


def focal(
    device: torch.device,
    scale: float,
    *,
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
) -> Case:
    """Sigmoid focal loss of class indices with ignored rows, maybe also by PyTorch's compiler."""
    rows, classes = max(int(size[0] * scale), 2), size[1]
    logits, labels = logits_and_labels(rows, classes, dtype, device)
    counted = labels >= 0

    def one_hot() -> Tensor:
        hot = logits.new_zeros(rows, classes + 1)
        hot.scatter_(1, labels.clamp(min=0)[:, None], 1)
        return hot[:, :classes]

    def masked(loss: Callable[[Tensor, Tensor], Tensor]) -> Run:
        """What a user of a package without class indices writes."""
        return forward_backward(lambda x: loss(x[counted], one_hot()[counted]), logits)

    ours = partial(sigmoid_focal_loss, target=labels, reduction="sum")
    runners: dict[str, Run] = {}
    compiled = compiled and scale == 1
    if compiled:
        faster = torch.compile(ours, fullgraph=True)
        runners["detloss compiled"] = forward_backward(lambda x: faster(x), logits)
    runners["detloss"] = forward_backward(lambda x: ours(x), logits)
    runners["plain formula"] = in_plain(runners["detloss"])
    if ops := optional("torchvision.ops"):
        theirs = partial(ops.sigmoid_focal_loss, reduction="sum")
        runners["torchvision"] = masked(theirs)
        if compiled:
            runners["torchvision compiled"] = masked(torch.compile(theirs, dynamic=True))
    if fvcore := optional("fvcore.nn"):
        theirs = partial(fvcore.sigmoid_focal_loss, alpha=0.25, gamma=2, reduction="sum")
        runners["fvcore"] = masked(theirs)
    if losses := optional("kornia.losses"):
        theirs = partial(
            losses.binary_focal_loss_with_logits, alpha=0.25, gamma=2.0, reduction="sum"
        )
        runners["kornia"] = masked(theirs)
    if losses := optional("mmdet.models.losses.focal_loss"):
        theirs = partial(losses.py_sigmoid_focal_loss, alpha=0.25, gamma=2.0, reduction="sum")
        runners["mmdet"] = masked(theirs)
    kind = str(dtype).removeprefix("torch.")
    title = f"sigmoid focal loss, {rows:,} x {classes} logits, {kind}"
    return Case(title, runners, logits.nbytes, least_bytes=2 * logits.nbytes)


def dense(device: torch.device, scale: float, *, name: str) -> Case:
    """Another classification loss against its own plain formula under autograd."""
    logits, labels = logits_and_labels(int(76_725 * scale), 80, torch.float32, device)
    labels = labels.clamp(max=79)
    loss = detloss.build_part("classification", {"type": name, "reduction": "sum"})
    run = forward_backward(lambda x: loss(x, labels), logits)
    runners = {"detloss": run, "plain formula": in_plain(run)}
    title = f"{name}, {len(logits):,} x 80 logits"
    return Case(title, runners, logits.nbytes, least_bytes=2 * logits.nbytes)


def in_plain(run: Run) -> Run:
    """`run` with detloss's plain formulas on the whole tensor, autograd doing the rest."""

    def plainly() -> Sequence[Tensor]:
        with plain_formulas():
            return run()

    return plainly


# --- Boxes ----------------------------------------------------------------------------------------


def paired_boxes(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Predicted boxes in pixels, and the ground truth some pixels away."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * 600
    size = torch.rand(count, 2, generator=generator) * 100 + 5
    target = torch.cat([corner, corner + size], dim=-1)
    pred = target + torch.randn(count, 4, generator=generator) * 8
    pred[:, 2:] = torch.maximum(pred[:, 2:], pred[:, :2] + 1)
    return pred.to(device), target.to(device)


def boxes(device: torch.device, scale: float, *, kind: str, count: int) -> Case:
    """A box loss on pairs."""
    pred, target = paired_boxes(max(int(count * scale), 2), device)
    ours = {"giou": giou_loss, "diou": diou_loss, "ciou": ciou_loss}[kind]
    runners: dict[str, Run] = {
        "detloss": forward_backward(lambda x: ours(x, target, reduction="sum"), pred)
    }
    if ops := optional("torchvision.ops"):
        names = {"giou": "generalized_box_iou_loss", "diou": "distance_box_iou_loss"}
        theirs = getattr(ops, names.get(kind, "complete_box_iou_loss"))
        runners["torchvision"] = forward_backward(
            lambda x: theirs(x, target, reduction="sum"), pred
        )
    if metrics := optional("ultralytics.utils.metrics"):
        option = {"giou": "GIoU", "diou": "DIoU", "ciou": "CIoU"}[kind]
        overlap = partial(metrics.bbox_iou, xywh=False, **{option: True})
        runners["ultralytics"] = forward_backward(lambda x: (1 - overlap(x, target)).sum(), pred)
    # mmdet's CIoU is another function: its alpha is 0 up to an IoU of 1/2
    losses = optional("mmdet.models.losses.iou_loss") if kind != "ciou" else None
    if losses:
        other = getattr(losses, f"{kind}_loss")
        runners["mmdet"] = forward_backward(lambda x: other(x, target, reduction="sum"), pred)
    return Case(f"{kind} loss, {len(pred):,} pairs", runners, pred.nbytes, 3 * pred.nbytes)


# --- Matching and the whole step ------------------------------------------------------------------


def retinanet_anchors(side: int, device: torch.device) -> Tensor:
    """RetinaNet's anchors, nine a cell, over five levels of a square image."""
    levels = []
    for stride in (8, 16, 32, 64, 128):
        middle = torch.arange(stride / 2, side, stride)
        y, x = torch.meshgrid(middle, middle, indexing="ij")
        centre = torch.stack([x, y], dim=-1).reshape(-1, 1, 2)
        scales = 4 * stride * 2 ** (torch.arange(3) / 3)
        ratios = torch.tensor([0.5, 1.0, 2.0]).sqrt()
        half = torch.stack([scales[:, None] / ratios, scales[:, None] * ratios], dim=-1) / 2
        half = half.reshape(1, 9, 2)
        levels.append(torch.cat([centre - half, centre + half], dim=-1).reshape(-1, 4))
    return torch.cat(levels).to(device)


def objects(count: int, side: int, device: torch.device, seed: int = 0) -> Tensor:
    """Ground-truth boxes of 12 to 240 pixels a side."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * (side - 100)
    size = torch.exp(torch.rand(count, 2, generator=generator) * 3 + 2.5)
    return torch.cat([corner, (corner + size).clamp(max=side)], dim=-1).to(device)


def matching(device: torch.device, scale: float, *, counts: Sequence[int], side: int = 800) -> Case:
    """Max-IoU matching of a batch, with the low-quality rule."""
    side = side if scale == 1 else 128
    anchors = retinanet_anchors(side, device)
    images = [objects(count, side, device, seed=count) for count in counts]
    matcher = detloss.build_part("matcher", {"type": "max_iou"})

    def ours() -> Sequence[Tensor]:
        found = [matcher(anchors, boxes) for boxes in images]
        return [
            torch.where(m.positive, m.target_index, torch.where(m.ignored, -2, -1)) for m in found
        ]

    runners: dict[str, Run] = {"detloss": ours}
    if utils := optional("torchvision.models.detection._utils"):
        box_iou = importlib.import_module("torchvision.ops").box_iou
        theirs = utils.Matcher(0.5, 0.4, allow_low_quality_matches=True)
        runners["torchvision"] = lambda: [theirs(box_iou(boxes, anchors)) for boxes in images]
    title = f"max-IoU matching, {len(anchors):,} anchors, {' + '.join(map(str, counts))} boxes"
    return Case(title, runners, anchors.nbytes)


def criterion_step(device: torch.device, scale: float) -> Case:
    """The whole loss of a RetinaNet: match, encode, both losses, backward."""
    side = 640 if scale == 1 else 128
    anchors = retinanet_anchors(side, device)
    targets = [
        {"boxes": objects(count, side, device, seed=count), "labels": torch.arange(count) % 80}
        for count in (7, 20)
    ]
    targets = [{key: value.to(device) for key, value in target.items()} for target in targets]
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(2, len(anchors), 80, generator=generator) * 2 - 4).to(device)
    deltas = (torch.randn(2, len(anchors), 4, generator=generator) / 4).to(device)

    def step(loss: Callable[[Tensor, Tensor], Tensor]) -> Run:
        def run() -> Sequence[Tensor]:
            one, other = logits.detach().requires_grad_(), deltas.detach().requires_grad_()
            total = loss(one, other)
            total.backward()  # type: ignore[no-untyped-call]
            assert one.grad is not None
            assert other.grad is not None
            return total, one.grad, other.grad

        return run

    criterion = detloss.build(
        {
            "matcher": {"type": "max_iou"},
            "classification": {"type": "sigmoid_focal"},
            "box": {"type": "l1"},
            "normalizer": {"type": "per_image"},
        }
    )

    def ours(one: Tensor, other: Tensor) -> Tensor:
        predictions = {"class_logits": one, "box_regression": other}
        total: Tensor = criterion(predictions, targets, anchors=anchors).total
        return total

    runners: dict[str, Run] = {"detloss": step(ours)}
    if detection := optional("torchvision.models.detection"):
        model = detection.retinanet_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=80
        )

        def theirs(one: Tensor, other: Tensor) -> Tensor:
            heads = {"cls_logits": one, "bbox_regression": other}
            terms = model.compute_loss(targets, heads, [anchors, anchors])
            return torch.stack(list(terms.values())).sum()

        runners["torchvision"] = step(theirs)
    return Case(f"RetinaNet's loss, 2 x {len(anchors):,} anchors", runners, logits.nbytes)


CASES: dict[str, Build] = {
    "focal": partial(focal, size=RETINANET),
    "focal-compiled": partial(focal, size=RETINANET, compiled=True),
    "focal-bf16": partial(focal, size=RETINANET, dtype=torch.bfloat16),
    "focal-yolo": partial(focal, size=YOLO),
    "focal-detr": partial(focal, size=DETR),
    "focal-1000": partial(focal, size=(1000, 80)),
    "focal-100": partial(focal, size=(100, 80)),
    **{
        f"dense-{name}": partial(dense, name=name)
        for name in CLASSIFICATION.names()
        if name not in ("sigmoid_focal", "zero_one")
    },
    **{
        f"{kind}-{count}": partial(boxes, kind=kind, count=count)
        for kind in ("giou", "diou", "ciou")
        for count in (1_000, 100_000)
    },
    "match-10": partial(matching, counts=(10,)),
    "match-100": partial(matching, counts=(100,)),
    "match-500": partial(matching, counts=(500,)),
    "match-batch": partial(matching, counts=(5, 20, 50, 100), side=640),
    "criterion": criterion_step,
}
