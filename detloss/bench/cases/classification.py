"""Cases of classification losses, at the sizes of known detectors."""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

import detloss
from detloss.bench.cases.peers import peers_of
from detloss.bench.cases.runners import forward_backward, in_plain, normal
from detloss.bench.measure import Case, Run
from detloss.classification import ClassificationLoss, sigmoid_focal_loss
from detloss.registry import CLASSIFICATION

RETINANET, YOLO, DETR = (2 * 76_725, 80), (16 * 8_400, 80), (2 * 300, 91)
"""Rows and classes of the logits of a batch."""
LOSSES = [name for name in CLASSIFICATION.names() if name != "zero_one"]
"""Those with a gradient."""
WITH_QUALITY = [
    name
    for name in LOSSES
    if cast(type[ClassificationLoss], CLASSIFICATION[name]).default_label != "one"
]
"""Losses that learn how good the box of a positive is."""


def logits_and_labels(
    rows: int, classes: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Logits of an early training step; one label in 1,000 an object, one in 100 ignored."""
    logits = normal(rows, classes, device=device).mul_(2).sub_(4).to(dtype)
    labels = torch.full((rows,), classes)
    chosen = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    objects, ignored = max(rows // 1000, 1), rows // 100
    labels[chosen[:objects]] = torch.arange(objects) % classes
    labels[chosen[objects : objects + ignored]] = -1
    return logits, labels.to(device)


def one_hot(labels: Tensor, logits: Tensor) -> Tensor:
    """(N, C) in the type of the logits; a row of zeros for background and for ignored rows."""
    hot = logits.new_zeros(len(logits), logits.shape[1] + 1)
    hot.scatter_(1, labels.clamp(min=0)[:, None], 1)
    return hot[:, :-1]


def focal(
    device: torch.device,
    scale: float,
    *,
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
) -> Case:
    """Sigmoid focal loss of class indices with ignored rows, by PyTorch's compiler if wanted."""
    rows, classes = max(int(size[0] * scale), 2), size[1]
    logits, labels = logits_and_labels(rows, classes, device, dtype)
    counted = labels >= 0

    def masked(loss: Callable[[Tensor, Tensor], Tensor]) -> Run:
        """What a user of a package without class indices writes."""
        return forward_backward(
            lambda x: loss(x[counted], one_hot(labels, logits)[counted]), logits
        )

    ours: Callable[..., Tensor] = partial(sigmoid_focal_loss, target=labels, reduction="sum")
    peers = peers_of("sigmoid_focal")
    if compiled:
        ours = torch.compile(ours, fullgraph=True)
        peers = {
            name: torch.compile(theirs, dynamic=True)
            for name, theirs in peers.items()
            if name == "torchvision"
        }
    runners = {"detloss": forward_backward(ours, logits)}
    runners |= {name: masked(theirs) for name, theirs in peers.items()}
    kind = str(dtype).removeprefix("torch.") + (", compiled" if compiled else "")
    title = f"sigmoid focal loss, {rows:,} x {classes} logits, {kind}"
    loss = None if compiled else ours
    return _case(title, runners, loss, logits, least_passes=2)


def indices(
    device: torch.device, scale: float, *, name: str, size: tuple[int, int] = (76_725, 80)
) -> Case:
    """A loss of class indices against its own plain formula under autograd."""
    rows, classes = max(int(size[0] * scale), 2), size[1]
    logits, labels = logits_and_labels(rows, classes, device)
    labels = labels.clamp(max=classes - 1)
    loss = detloss.build_part("classification", {"type": name, "reduction": "sum"})
    ours = partial(loss, target=labels)
    run = forward_backward(ours, logits)
    runners = {"detloss": run, "plain formula": in_plain(run)}
    if name == "softmax_cross_entropy":
        theirs = partial(functional.cross_entropy, ignore_index=-1, reduction="sum")
        runners["PyTorch"] = forward_backward(lambda x: theirs(x, labels), logits)
    return _case(f"{name}, {rows:,} x {classes} logits", runners, ours, logits, least_passes=2)


def with_quality(device: torch.device, scale: float, *, name: str) -> Case:
    """A loss of class indices and of how good each box is, at the size of GFL and VarifocalNet."""
    logits, labels = logits_and_labels(int(2 * 22_400 * scale), 80, device)
    quality = normal(len(logits), device=device, seed=1).sigmoid()
    loss = detloss.build_part("classification", {"type": name, "reduction": "sum"})
    ours = partial(loss, target=labels, quality=quality)
    run = forward_backward(ours, logits)
    runners = {"detloss": run, "plain formula": in_plain(run)}
    title = f"{name} with qualities, {len(logits):,} x 80 logits"
    return _case(title, runners, ours, logits, least_passes=2)


def one_hot_given(device: torch.device, scale: float, *, name: str) -> Case:
    """A loss of one-hot labels that are there already, no row ignored: the peer's own operator."""
    logits, labels = logits_and_labels(int(RETINANET[0] * scale), RETINANET[1], device)
    target = one_hot(labels, logits)
    loss = detloss.build_part("classification", {"type": name, "reduction": "sum"})
    ours = partial(loss, target=target)
    runners = {"detloss": forward_backward(ours, logits)}
    runners |= {
        package: forward_backward(lambda x, theirs=theirs: theirs(x, target), logits)
        for package, theirs in peers_of(name).items()
    }
    title = f"{name}, one-hot given, {len(logits):,} x {RETINANET[1]} logits"
    return _case(title, runners, ours, logits, least_passes=3)


def _case(
    title: str,
    runners: dict[str, Run],
    loss: Callable[..., Tensor] | None,
    logits: Tensor,
    *,
    least_passes: int,
) -> Case:
    """Whoever computes it must move the bytes of the logits that often."""
    least_bytes = least_passes * logits.nbytes
    return Case(title, runners, logits.nbytes, least_bytes, loss=loss, predictions=[logits])
