"""The nearest anchors of each level, and the smallest values: the head of a stable sort."""

import pytest
import torch

from detloss.matchers.nearest import GROUP, _nearest_of_level, nearest, smallest
from detloss.tensors import without_host_sync


@pytest.mark.parametrize("host_sync", [True, False])
@pytest.mark.parametrize("count", [1, 2, 5, 11, 12])
@pytest.mark.parametrize("values", [3, 1, 100])
def test_the_smallest_are_the_head_of_a_stable_sort(values, count, host_sync):
    """12 columns of so many different values."""
    generator = torch.Generator().manual_seed(count)
    rows = torch.randint(0, values, (50, 12), generator=generator).float()
    expected = rows.argsort(dim=1, stable=True)[:, :count].sort(1).values
    if host_sync:
        found = smallest(rows, count)
    else:
        with without_host_sync():
            found = smallest(rows, count)
    assert torch.equal(found.sort(1).values, expected)


@pytest.mark.parametrize("count", [1, 4, 9])
@pytest.mark.parametrize("size", [1600, 1583])
@pytest.mark.parametrize("order", ["rows", "shuffled"])
def test_the_nearest_of_a_large_level_are_the_head_of_a_stable_sort(order, size, count):
    """Of 40 x 40 points or some fewer; truths on points and between them have many as near."""
    place = torch.cartesian_prod(torch.arange(40.0), torch.arange(40.0))[:size]
    if order == "shuffled":
        place = place[torch.randperm(size, generator=torch.Generator().manual_seed(0))]
    truths = torch.randint(0, 80, (2, 200), generator=torch.Generator().manual_seed(1)) / 2
    assert size > 2 * GROUP * count, "no points are ruled out in groups"
    distance = ((place.t()[:, None] - truths[..., None]) ** 2).sum(0)
    expected = distance.argsort(dim=1, stable=True)[:, :count].sort(1).values
    found = _nearest_of_level(place.t(), truths, count)
    assert torch.equal(found.sort(1).values, expected)


@pytest.mark.parametrize("host_sync", [True, False])
@pytest.mark.parametrize("count", [1, 3, 9, 20])
@pytest.mark.parametrize("sizes", [[100], [64, 0, 16, 20], [3, 1, 96]])
def test_the_nearest_of_levels_are_the_head_of_a_stable_sort_of_each(
    sizes, count, host_sync, monkeypatch
):
    """Points on a grid, of which many are as near; on an accelerator some truths at once."""
    generator = torch.Generator().manual_seed(count)
    centre = torch.randint(0, 12, (100, 2), generator=generator).float()
    boxes = torch.cat([centre - 4, centre + 4], 1)
    truths = torch.randint(0, 24, (7, 2), generator=generator) / 2
    distance = (centre - truths[:, None]).square().sum(-1)
    expected, first = [], 0
    for size in sizes:
        level = distance[:, first : first + size]
        expected.append(level.argsort(dim=1, stable=True)[:, :count].sort(1).values + first)
        first += size
    truths = torch.cat([truths - 3, truths + 3], 1)
    if host_sync:
        found = nearest(boxes[None], truths[None], sizes, count)
    else:
        monkeypatch.setattr("detloss.matchers.tiles.GPU_PAIRS", 2 * 2 * 100 * 3)
        images = boxes.expand(2, -1, -1), torch.stack([truths, truths.flip(0)])
        with without_host_sync():
            found = nearest(*images, sizes, count)
        assert torch.equal(found[1].flip(0).sort(1).values, found[0].sort(1).values)
    assert torch.equal(found[0].sort(1).values, torch.cat(expected, 1))
