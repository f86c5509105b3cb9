"""Box formats and how to get from one to another."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detloss.boxes.checking import check_boxes, check_image_size
from detloss.options import check_choice

FORMATS = ("xyxy", "xywh", "cxcywh", "xyxyn", "xywhn", "cxcywhn")


def convert_boxes(
    boxes: Tensor, source: str, target: str, *, image_size: Sequence[int] | None = None
) -> Tensor:
    """Boxes of one format in another; continuous coordinates, no inclusive-pixel +1.

    "xyxy" is (x1, y1, x2, y2), "xywh" is (x1, y1, width, height), "cxcywh" is (centre x,
    centre y, width, height). A trailing "n" means normalised: x and width divided by the image's
    width, y and height by its height.

    Args:
        boxes: (..., 4) in the `source` format, floating point.
        source: Format of `boxes`.
        target: Format of the result.
        image_size: (height, width) in pixels. Needed if only one of the formats is normalised.

    Returns:
        (..., 4) in the `target` format, of the dtype of `boxes`; differentiable.

    Raises:
        TypeError: If `boxes` is not floating point.
        ValueError: If the last axis is not 4, a format is unknown, the image size is missing, or
            the boxes say that they have another format than `source`, as torchvision's
            `BoundingBoxes` do.

    Example:
        >>> convert_boxes(torch.tensor([[10.0, 20, 30, 60]]), "xyxy", "cxcywh")
        tensor([[20., 40., 20., 40.]])
        >>> convert_boxes(torch.tensor([[0.5, 0.5, 0.25, 0.5]]), "cxcywhn", "xyxy",
        ...               image_size=(100, 200))
        tensor([[ 75.,  25., 125.,  75.]])
    """
    for name, value in (("source", source), ("target", target)):
        check_choice(name, value, FORMATS)
    check_boxes("boxes", boxes, source.removesuffix("n"))
    if type(boxes) is not Tensor and hasattr(boxes, "format"):
        boxes = boxes.as_subclass(Tensor)  # the result would still say that it has that format
    if source == target:
        return boxes

    corners = _to_corners(boxes, source.removesuffix("n"))
    if source.endswith("n") != target.endswith("n"):
        if image_size is None:
            raise ValueError(f"image_size is needed to convert {source!r} to {target!r}, got None")
        height, width = check_image_size(image_size)
        scale = boxes.new_tensor([width, height, width, height])
        corners = corners * scale if source.endswith("n") else corners / scale
    return _from_corners(corners, target.removesuffix("n"))


def _to_corners(boxes: Tensor, source: str) -> Tensor:
    if source == "xyxy":
        return boxes
    position, size = boxes[..., :2], boxes[..., 2:]
    top_left = position if source == "xywh" else position - size / 2
    return torch.cat([top_left, top_left + size], dim=-1)


def _from_corners(corners: Tensor, target: str) -> Tensor:
    if target == "xyxy":
        return corners
    top_left, bottom_right = corners[..., :2], corners[..., 2:]
    position = top_left if target == "xywh" else (top_left + bottom_right) / 2
    return torch.cat([position, bottom_right - top_left], dim=-1)
