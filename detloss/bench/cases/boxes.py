"""Cases of box losses, on pairs of a predicted box and its ground truth."""

from functools import partial

import torch
from torch import Tensor

from detloss.bench.cases.runners import forward_backward, normal, optional
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
    title = f"{kind} loss, {len(pred):,} pairs"
    return Case(title, runners, pred.nbytes, 3 * pred.nbytes, loss=ours, predictions=[pred])
