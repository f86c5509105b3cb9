"""Grids of anchors: the boxes or points at which the cells of feature maps predict."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Stride = float | Sequence[float]


def grid_anchors(
    level_shapes: Sequence[Sequence[int]],
    strides: Sequence[Stride],
    *,
    scales: Sequence[float] | None = None,
    sides: Sequence[Sequence[float]] | None = None,
    sizes: Sequence[Sequence[Sequence[float]]] | None = None,
    ratios: Sequence[float] = (1.0,),
    offset: float = 0.0,
    rounded: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, list[int]]:
    """Anchors around every cell of every level of a feature pyramid.

    The anchors of the cell in row i and column j are centred at ``((j + offset) sx, (i + offset)
    sy)``; (sy, sx) is the level's stride. Exactly one of `scales`, `sides` and `sizes` says how
    large they are. Each of those is then stretched to each ratio q, ``1 / sqrt(q)`` times as wide
    and ``sqrt(q)`` times as high: its area stays.

    Args:
        level_shapes: (height, width) of each level's feature map, in cells.
        strides: Stride of each level, in pixels: one for both axes, or (sy, sx).
        scales: Sides of the squares, in strides, the same on all levels. A stride that differs by
            axis makes rectangles of them.
        sides: Sides of the squares, in pixels, a list for each level.
        sizes: (width, height) in pixels, a list for each level.
        ratios: Height over width, times that of `sizes`.
        offset: Where in its cell a centre lies: 0 in the corner, 0.5 in the middle.
        rounded: Whether an anchor's corners, relative to its centre, are rounded to whole pixels,
            a half to the even one.
        device: Where the anchors are made.
        dtype: The anchors' floating-point type; float16 and bfloat16 are rounded from float32.

    Returns:
        Anchors (A, 4) as (x1, y1, x2, y2) in pixels, and how many of them each level has. They
        stand level by level; in a level row by row, then column by column; in a cell all sizes of
        the first ratio, then all of the next.

    Raises:
        ValueError: If there is no level, a list has not one entry for each level, not exactly one
            of `scales`, `sides` and `sizes` is given, or one of the numbers is not positive.

    Example:
        The nine anchors a cell of RetinaNet, in mmdetection and in torchvision:

        >>> levels, strides, ratios = [(16, 16), (8, 8)], [8, 16], [0.5, 1.0, 2.0]
        >>> octaves = [4 * 2 ** (i / 3) for i in range(3)]
        >>> anchors, level_sizes = grid_anchors(levels, strides, scales=octaves, ratios=ratios)
        >>> anchors[0], level_sizes
        (tensor([-22.6274, -11.3137,  22.6274,  11.3137]), [2304, 576])
        >>> sides = [[32, 40, 50], [64, 80, 101]]
        >>> anchors, _ = grid_anchors(levels, strides, sides=sides, ratios=ratios, rounded=True)
        >>> anchors[0]
        tensor([-23., -11.,  23.,  11.])

        Sizes one by one, as in SSD:

        >>> grid_anchors([(1, 1)], [32], sizes=[[(20, 20), (30, 10)]], offset=0.5)
        (tensor([[ 6.,  6., 26., 26.],
                [ 1., 11., 31., 21.]]), [2])

    Reference:
        Ren et al., "Faster R-CNN", NeurIPS 2015, arXiv:1506.01497, section 3.1.1; Lin et al.,
        "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002, section 4.
    """
    _check_levels(level_shapes, strides=strides, sides=sides, sizes=sizes)
    if sum(given is not None for given in (scales, sides, sizes)) != 1:
        raise ValueError(
            "exactly one of scales, sides and sizes must be given, "
            f"got scales={scales}, sides={sides}, sizes={sizes}"
        )
    _check_positive(strides=strides, scales=scales, sides=sides, sizes=sizes, ratios=ratios)
    made_in = torch.promote_types(dtype, torch.float32)

    def numbers(values: Sequence[object]) -> Tensor:
        return torch.tensor(values, dtype=made_in, device=device)

    root = numbers(ratios).sqrt()
    stretch = torch.stack([1 / root, root], dim=-1)[:, None]  # (ratios, 1, 2)
    levels = []
    for level, ((height, width), stride) in enumerate(zip(level_shapes, strides, strict=True)):
        stride_y, stride_x = stride if isinstance(stride, Sequence) else (stride, stride)
        if scales is not None:
            size = numbers(scales)[:, None] * numbers([stride_x, stride_y])
        elif sides is not None:
            size = numbers(sides[level])[:, None]
        elif sizes is not None:
            size = numbers(sizes[level])
        half = (stretch * size).flatten(0, 1) / 2  # (anchors of a cell, 2)
        corners = torch.cat([-half, half], dim=-1)
        if rounded:
            corners = corners.round()
        x = (torch.arange(width, dtype=made_in, device=device) + offset) * stride_x
        y = (torch.arange(height, dtype=made_in, device=device) + offset) * stride_y
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        centres = torch.stack([grid_x, grid_y, grid_x, grid_y], dim=-1)  # (height, width, 4)
        levels.append((centres[:, :, None] + corners).reshape(-1, 4))
    return torch.cat(levels).to(dtype), [len(anchors) for anchors in levels]


def grid_points(
    level_shapes: Sequence[Sequence[int]],
    strides: Sequence[Stride],
    offset: float = 0.5,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, list[int]]:
    """Points, one a cell, each as an anchor: the square of the stride's side around it.

    Matchers and coders take boxes. From such a square they have the point, its centre, and the
    stride, its side.

    Args:
        level_shapes: (height, width) of each level's feature map, in cells.
        strides: Stride of each level, in pixels: one for both axes, or (sy, sx).
        offset: Where in its cell a point lies: 0 in the corner, 0.5 in the middle.
        device: Where the anchors are made.
        dtype: The anchors' floating-point type; float16 and bfloat16 are rounded from float32.

    Returns:
        Anchors (A, 4) as (x1, y1, x2, y2) in pixels, level by level, row by row, column by column;
        and how many of them each level has.

    Raises:
        ValueError: If there is no level, `strides` has not one entry for each, or a stride is not
            positive.

    Example:
        >>> grid_points([(1, 2), (1, 1)], [8, 16])
        (tensor([[ 0.,  0.,  8.,  8.],
                [ 8.,  0., 16.,  8.],
                [ 0.,  0., 16., 16.]]), [2, 1])

    Reference:
        Tian et al., "FCOS", ICCV 2019, arXiv:1904.01355, section 3.1.
    """
    return grid_anchors(
        level_shapes, strides, scales=(1.0,), offset=offset, device=device, dtype=dtype
    )


def anchor_strides(
    level_sizes: Sequence[int],
    strides: Sequence[float],
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The stride of each anchor, for anchors whose sides do not tell it.

    Args:
        level_sizes: How many anchors each level has, in order, as `grid_anchors` returns it.
        strides: Stride of each level.
        device: Where the strides are.
        dtype: Their floating-point type.

    Returns:
        Strides (A,), in the unit of `strides`.

    Raises:
        ValueError: If there is no level, or `strides` has not one entry for each.

    Example:
        >>> anchor_strides([2, 1], [8, 16])
        tensor([ 8.,  8., 16.])

    Reference:
        Redmon and Farhadi, "YOLOv3: An Incremental Improvement", 2018, arXiv:1804.02767, section
        2.3: three sizes of anchors at each of three strides.
    """
    if not level_sizes:
        raise ValueError("level_sizes must have at least one level, got none")
    if len(strides) != len(level_sizes):
        raise ValueError(
            f"strides must have one entry for each of {len(level_sizes)} levels, got {len(strides)}"
        )
    levels = zip(level_sizes, strides, strict=True)
    # filled level by level: a tensor made of a list is a host sync
    return torch.cat([torch.full((n,), s, device=device, dtype=dtype) for n, s in levels])


def _check_levels(level_shapes: Sequence[Sequence[int]], **given: Sequence[object] | None) -> None:
    """Raises ValueError unless each list that is given has one entry a level."""
    if not level_shapes:
        raise ValueError("level_shapes must have at least one level, got none")
    for name, entries in given.items():
        if entries is not None and len(entries) != len(level_shapes):
            raise ValueError(
                f"{name} must have one entry for each of {len(level_shapes)} levels, "
                f"got {len(entries)}"
            )


def _check_positive(**given: object) -> None:
    """Raises ValueError unless all numbers, in lists of lists, are positive."""
    for name, values in given.items():
        if not _positive(values):
            raise ValueError(f"{name} must be greater than 0, got {values}")


def _positive(values: object) -> bool:
    if isinstance(values, Sequence):
        return all(map(_positive, values))
    return values is None or values > 0  # type: ignore[operator]
