"""Cases of box losses, on pairs of a predicted box and its ground truth."""

from functools import partial

import torch
from torch import Tensor

from detloss.bench.cases.peers import peers_of
from detloss.bench.cases.runners import forward_backward, normal
from detloss.bench.measure import Case, Run
from detloss.regression import ciou_loss, diou_loss, giou_loss


def paired_boxes(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Predicted boxes in pixels, and the ground truth some pixels away."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * 600
    size = torch.rand(count, 2, generator=generator) * 100 + 5
    target = torch.cat([corner, corner + size], dim=-1).to(device)
    pred = target + 8 * normal(count, 4, device=device)
    pred[:, 2:] = torch.maximum(pred[:, 2:], pred[:, :2] + 1)
    return pred, target


def boxes(device: torch.device, scale: float, *, kind: str, count: int) -> Case:
    """A box loss on pairs."""
    pred, target = paired_boxes(max(int(count * scale), 2), device)
    loss = {"giou": giou_loss, "diou": diou_loss, "ciou": ciou_loss}[kind]
    ours = partial(loss, target=target, reduction="sum")
    runners: dict[str, Run] = {"detloss": forward_backward(ours, pred)}
    runners |= {
        package: forward_backward(lambda x, theirs=theirs: theirs(x, target), pred)
        for package, theirs in peers_of(kind).items()
    }
    title = f"{kind} loss, {len(pred):,} pairs"
    return Case(title, runners, pred.nbytes, 3 * pred.nbytes, loss=ours, predictions=[pred])
