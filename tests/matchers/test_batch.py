"""On an accelerator a batch is matched at once; the matches are the CPU's, to the bit."""

import pytest
import torch
from boxgen import random_boxes
from matching import said, some_losses
from scenes import grid_anchors
from torch.testing import assert_close

import detloss
from detloss.bench.launches import count
from detloss.matchers import MaxIoUMatcher
from detloss.registry import MATCHERS
from detloss.tensors import without_host_sync

LEVELS = [256, 64, 16]
GRID = torch.cat(
    [grid_anchors(4.0, 4.0), grid_anchors(8.0, 8.0), grid_anchors(16.0, 16.0)],
)
"""The points of three levels, on which distances, overlaps and areas tie."""
OPTIONS = {
    "max_iou": [
        {},
        {"low_quality": False},
        {"positive": 0.0, "negative": 0.0},
        {"convention": "mmdet"},
    ],
    "fcos": [{}, {"radius": 1.5, "convention": "torchvision"}],
    "atss": [{"scale": 8}, {"topk": 4, "convention": "paddle"}, {"convention": "mmdet"}],
}
MATCHERS_WITH_OPTIONS = [
    pytest.param({"type": name, **options}, id=f"{name}-{options}")
    for name in MATCHERS.names()
    for options in OPTIONS.get(name, [{}])
]


def scene(counts, *, seed, dtype=torch.float32, own_anchors=False, flags=True):
    """Of each image: anchors, ground truths and flags; some boxes broken, equal or anchors."""
    generator = torch.Generator().manual_seed(seed)
    anchors, truths, ignored = [], [], []
    for image, number in enumerate(counts):
        boxes = random_boxes(number, seed=100 * seed + image, dtype=torch.float32) / 1.5
        kind = torch.randint(0, 8, (number,), generator=generator)
        boxes[kind == 0] = boxes[kind == 0].round()
        boxes[kind == 1] = boxes[:1].clone()
        boxes[kind == 2] = GRID[torch.randint(0, 336, (int((kind == 2).sum()),))]
        boxes[kind == 3] = boxes[kind == 3].flip(1)  # inverted
        if seed % 3 == 0:
            boxes[kind == 4, 2] = torch.tensor([torch.nan, torch.inf, -torch.inf])[image % 3]
        truths.append(boxes.to(dtype))
        anchors.append(GRID + image if own_anchors else GRID)
        some = torch.rand(number, generator=generator) < 0.2
        ignored.append(some if flags and image != 1 else None)
    return anchors, truths, ignored


def asked_for(matcher, anchors, truths, seed):
    """What the matcher needs, of the whole batch."""
    generator = torch.Generator().manual_seed(seed)
    images, count = len(anchors), len(anchors[0])
    given = {
        "gt_labels": [torch.arange(len(boxes)) % 3 for boxes in truths],
        "level_sizes": LEVELS,
        "class_logits": torch.randn(images, count, 3, generator=generator),
        "pred_boxes": torch.stack(anchors) + torch.randn(images, count, 4, generator=generator),
        "objectness": torch.randn(images, count, generator=generator),
        "losses": some_losses,
    }
    return {name: given[name] for name in matcher.needs}


def assert_equal(found, expected):
    """To the bit, but for a score: an exponential rounds by its place in memory."""
    for image, (one, other) in enumerate(zip(found, expected, strict=True)):
        for name in ("target_index", "positive", "ignored", "listed_pairs"):
            got, wanted = getattr(one, name), getattr(other, name)
            same = got is wanted if wanted is None else torch.equal(got, wanted)
            assert same, f"{name} of image {image}"
        assert_close(one.score, other.score)


def both_ways(matcher, anchors, truths, ignored, seed=0):
    """The matches of an accelerator's path and those of each image alone."""
    given = asked_for(matcher, anchors, truths, seed)
    expected = [
        matcher(
            anchors[image],
            truths[image],
            gt_ignore=ignored[image],
            **{
                name: one if name in ("level_sizes", "losses") else one[image]
                for name, one in given.items()
            },
        )
        for image in range(len(anchors))
    ]
    with without_host_sync():
        found = matcher.batch(anchors, truths, gt_ignore=ignored, **given)
    return found, expected


@pytest.mark.parametrize("options", MATCHERS_WITH_OPTIONS)
class TestEveryMatcher:
    @pytest.mark.parametrize("seed", range(24))
    def test_a_batch_at_once_is_its_images(self, options, seed, monkeypatch):
        generator = torch.Generator().manual_seed(seed)
        images = int(torch.randint(1, 6, (), generator=generator))
        counts = torch.randint(0, 12, (images,), generator=generator).tolist()
        dtype = (torch.float32, torch.float16, torch.float64)[seed % 3]
        if seed % 4 == 3:  # two ground truths at once, the last alone
            monkeypatch.setattr("detloss.matchers.tiles.GPU_PAIRS", 2 * images * len(GRID))
        batch = scene(counts, seed=seed, dtype=dtype, own_anchors=seed % 2 == 1, flags=seed % 5 > 0)
        found, expected = both_ways(detloss.build_part("matcher", options), *batch, seed)
        assert_equal(found, expected)

    @pytest.mark.parametrize("counts", [[0], [0, 0, 0], [7], [0, 9]])
    def test_images_without_objects(self, options, counts):
        matcher = detloss.build_part("matcher", options)
        found, expected = both_ways(matcher, *scene(counts, seed=1))
        assert_equal(found, expected)
        empty = [one for one, number in zip(found, counts, strict=True) if not number]
        assert not any(one.positive.any() for one in empty)

    def test_under_autocast(self, options):
        matcher = detloss.build_part("matcher", options)
        batch = scene([5, 3], seed=2)
        with torch.autocast("cpu", torch.bfloat16):
            found, _ = both_ways(matcher, *batch)
        assert_equal(found, both_ways(matcher, *batch)[1])

    @pytest.mark.parametrize("flags", [True, False], ids=["flags", "no flags"])
    def test_launches_do_not_grow_with_the_batch(self, options, flags):
        matcher = detloss.build_part("matcher", options)

        def launches(images):
            anchors, truths, ignored = scene([9] * images, seed=1, flags=flags)
            given = asked_for(matcher, anchors, truths, 0)
            arguments = on_meta((anchors, truths, ignored, given))
            counted = count(lambda: run(matcher, *arguments), 1)
            assert not counted.host_syncs
            return counted.launches

        def run(matcher, anchors, truths, ignored, given):
            return matcher.batch([anchors[0]] * len(anchors), truths, gt_ignore=ignored, **given)

        assert launches(16) == launches(2)


def on_meta(values):
    """The tensors in `values` on the meta device."""
    if isinstance(values, torch.Tensor):
        return values.to("meta")
    if isinstance(values, dict):
        return {name: on_meta(value) for name, value in values.items()}
    return type(values)(on_meta(value) for value in values) if is_list(values) else values


def is_list(values):
    return isinstance(values, list | tuple)


def test_a_tie_over_two_blocks_goes_to_the_first(monkeypatch):
    monkeypatch.setattr("detloss.matchers.tiles.GPU_PAIRS", 1)
    truth = torch.tensor([[0.0, 0, 10, 10]])
    truths = torch.cat([truth + 50, truth, truth, truth + 50])
    with without_host_sync():
        (found,) = MaxIoUMatcher().batch([torch.cat([truth, truth + 50])], [truths])
    assert said(found) == [1, 0]


def test_images_of_several_kinds_are_matched_one_by_one():
    """In float64, an image in float32 beside one in float64 would have other overlaps."""
    anchors, truths, _ = scene([3, 4], seed=0, flags=False)
    truths[1] = truths[1].double()
    found, expected = both_ways(MaxIoUMatcher(), anchors, truths, [None, None])
    assert_equal(found, expected)
