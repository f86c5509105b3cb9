"""What matches and a matcher's inputs must be, and what every registered matcher must do."""

import dataclasses

import pytest
import torch
from matching import some_losses
from scenes import grid_anchors, random_targets
from torch.testing import assert_close

import detloss
from detloss.boxes import grid_points, pairwise_overlap
from detloss.matchers import Matches
from detloss.matchers.images import check_match_inputs
from detloss.registry import MATCHERS
from detloss.tensors import without_host_sync

ANCHORS = grid_anchors(step=4.0)


def test_negative_is_the_rest():
    matches = Matches(
        target_index=torch.tensor([2, 0, 0, 0]),
        positive=torch.tensor([True, False, False, False]),
        ignored=torch.tensor([False, True, False, False]),
    )
    assert matches.negative.tolist() == [False, False, True, True]


def test_matches_are_not_reassigned():
    no = torch.zeros(2, dtype=torch.bool)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Matches(no.long(), no, no).positive = ~no


@pytest.mark.parametrize("is_pair", [None, torch.tensor([True, False, True])])
def test_listed_pairs_are_those_that_are_some(is_pair):
    pairs = torch.tensor([[0, 1], [7, 7], [0, 2]])
    no = torch.zeros(1, dtype=torch.bool)
    matches = Matches(no.long(), ~no, no, pairs=pairs, is_pair=is_pair)
    assert torch.equal(matches.listed_pairs, pairs if is_pair is None else pairs[::2])
    assert Matches(no.long(), ~no, no).listed_pairs is None


NO = torch.zeros(3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        pytest.param(
            {"target_index": [0, 0, 0]},
            TypeError,
            "target_index must be a tensor, got list",
            id="a list",
        ),
        pytest.param(
            {"target_index": torch.zeros(3)},
            TypeError,
            r"target_index must be torch\.int64, got torch\.float32",
            id="a float index",
        ),
        pytest.param(
            {"target_index": torch.zeros(2, 3, dtype=torch.long)},
            ValueError,
            r"target_index must have shape \(A,\), got \(2, 3\)",
            id="of a batch",
        ),
        pytest.param(
            {"positive": NO.int()},
            TypeError,
            r"positive must be torch\.bool, got torch\.int32",
            id="0 and 1",
        ),
        pytest.param(
            {"ignored": NO[:2]},
            ValueError,
            r"ignored must have the shape of target_index, \(3,\), got \(2,\)",
            id="a flag too few",
        ),
        pytest.param(
            {"score": NO},
            TypeError,
            r"score must be floating point, got torch\.bool",
            id="a score of yes or no",
        ),
        pytest.param(
            {"score": torch.zeros(3, 1)},
            ValueError,
            r"score must have the shape of target_index, \(3,\), got \(3, 1\)",
            id="a column of scores",
        ),
        pytest.param(
            {"pairs": torch.zeros(2, 4, dtype=torch.long)},
            ValueError,
            r"pairs must have shape \(P, 2\), got \(2, 4\)",
            id="pairs across",
        ),
        pytest.param(
            {"pairs": torch.zeros(2, 2)},
            TypeError,
            r"pairs must be torch\.int64, got torch\.float32",
            id="float pairs",
        ),
        pytest.param(
            {"pairs": torch.zeros(2, 2, dtype=torch.long), "is_pair": NO},
            ValueError,
            r"is_pair must have shape \(P,\), one for each of pairs, got \(3,\)",
            id="a flag an anchor",
        ),
        pytest.param(
            {"is_pair": NO},
            ValueError,
            r"is_pair must have shape \(P,\), one for each of pairs, got \(3,\)",
            id="flags of no pairs",
        ),
        pytest.param(
            {"pairs": torch.zeros(3, 2, dtype=torch.long), "is_pair": NO.int()},
            TypeError,
            r"is_pair must be torch\.bool, got torch\.int32",
            id="pairs of 0 and 1",
        ),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_matches_reject(values, error, message, device):
    right = {"target_index": NO.long(), "positive": NO, "ignored": NO}
    given = {
        name: one.to(device) if isinstance(one, torch.Tensor) else one
        for name, one in (right | values).items()
    }
    with pytest.raises(error, match=message):
        Matches(**given)


def test_matches_are_made_under_a_compiler():
    def make(positive):
        matches = Matches(positive.long(), positive, ~positive, positive.float(), sampled=True)
        return matches.score + 1

    positive = torch.tensor([True, False])
    compiled = torch.compile(make, fullgraph=True, backend="eager")
    assert compiled(positive).tolist() == [2, 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(("anchors", "truths"), [(3, 2), (0, 2), (3, 0), (0, 0)])
def test_any_number_of_boxes_passes(anchors, truths, dtype):
    gt_boxes = torch.zeros(truths, 4, dtype=dtype)
    check_match_inputs(torch.zeros(anchors, 4), gt_boxes, None)
    check_match_inputs(torch.zeros(anchors, 4), gt_boxes, torch.zeros(truths, dtype=torch.bool))


@pytest.mark.parametrize(
    ("anchors", "gt_boxes", "gt_ignore", "error", "message"),
    [
        pytest.param(
            torch.zeros(3, 4),
            [[0.0, 0.0, 1.0, 1.0]],
            None,
            TypeError,
            "gt_boxes must be a tensor, got list",
            id="a list of boxes",
        ),
        pytest.param(
            torch.zeros(3, 4).long(),
            torch.zeros(2, 4),
            None,
            TypeError,
            r"anchors must be floating point, got torch\.int64",
            id="integer anchors",
        ),
        pytest.param(
            torch.zeros(3, 2),
            torch.zeros(2, 4),
            None,
            ValueError,
            r"anchors must have shape \(\.\.\., 4\), got \(3, 2\)",
            id="points as anchors",
        ),
        pytest.param(
            torch.zeros(8, 3, 4),
            torch.zeros(2, 4),
            None,
            ValueError,
            r"anchors must have shape \(N, 4\), got \(8, 3, 4\)",
            id="anchors of a batch",
        ),
        pytest.param(
            torch.zeros(3, 4),
            torch.zeros(4),
            None,
            ValueError,
            r"gt_boxes must have shape \(N, 4\), got \(4,\)",
            id="one box without its axis",
        ),
        pytest.param(
            torch.zeros(3, 4),
            torch.zeros(2, 4),
            torch.tensor([0, 1]),
            TypeError,
            r"gt_ignore must be boolean, got torch\.int64",
            id="iscrowd as COCO stores it",
        ),
        pytest.param(
            torch.zeros(3, 4),
            torch.zeros(2, 4),
            torch.zeros(3, dtype=torch.bool),
            ValueError,
            r"gt_ignore must have shape \(2,\), got \(3,\)",
            id="one flag an anchor",
        ),
    ],
)
def test_rejects(anchors, gt_boxes, gt_ignore, error, message):
    with pytest.raises(error, match=message):
        check_match_inputs(anchors, gt_boxes, gt_ignore)


def asked_for(name, anchors, gt_boxes):
    """Of the optional inputs those that the matcher needs."""
    count = len(anchors)
    inputs = {
        "gt_labels": torch.zeros(len(gt_boxes), dtype=torch.long),
        "level_sizes": [count - count // 4, count // 4],
        "class_logits": torch.zeros(count, 2, dtype=anchors.dtype),
        "pred_boxes": anchors,
        "objectness": torch.zeros(count, dtype=anchors.dtype),
        "losses": some_losses,
    }
    return {one: inputs[one] for one in MATCHERS[name].needs}


def of_images(asked):
    """What each of several images is `asked_for`, as `Matcher.batch` takes it."""
    return {
        key: [one[key] for one in asked]
        if key == "gt_labels"
        else value
        if key in ("level_sizes", "losses")
        else torch.stack([one[key] for one in asked])
        for key, value in asked[0].items()
    }


def match(name, gt_boxes, *, anchors=ANCHORS, gt_ignore=None):
    return detloss.build_part("matcher", {"type": name})(
        anchors, gt_boxes, gt_ignore=gt_ignore, **asked_for(name, anchors, gt_boxes)
    )


def told(matches):
    """All that matches say; of pairs those that are some, since the others may be any."""
    return dataclasses.astuple(
        dataclasses.replace(matches, pairs=matches.listed_pairs, is_pair=None)
    )


def answered(matches, boxes):
    """The ground truths that each positive answers for, whatever their order."""
    if matches.pairs is None:
        return boxes[matches.target_index[matches.positive]]
    rows = torch.cat([matches.pairs[:, :1], boxes[matches.pairs[:, 1]]], dim=1)
    return torch.stack(sorted(rows, key=torch.Tensor.tolist))


def random_truths(count, *, seed):
    """(count, 4) boxes over the anchors, no two alike."""
    return random_targets([count], seed=seed)[0]["boxes"]


@pytest.mark.parametrize("name", MATCHERS.names())
class TestEveryMatcher:
    @pytest.mark.parametrize("seed", range(4))
    def test_says_one_thing_of_each_anchor(self, name, seed):
        matches = match(name, random_truths(6, seed=seed))
        assert matches.target_index.dtype == torch.int64
        assert matches.positive.dtype == matches.ignored.dtype == torch.bool
        assert len(matches.target_index) == len(ANCHORS)
        assert not matches.sampled
        assert (matches.score is not None) == MATCHERS[name].scores
        if matches.score is not None:
            assert ((matches.score >= 0) & (matches.score <= 1)).all()
            assert (matches.score[~matches.positive] == 0).all()
        assert matches.positive.any()
        assert not (matches.positive & matches.ignored).any()
        assert (matches.target_index[~matches.positive] == 0).all()
        assert (matches.target_index < 6).all()

    def test_points_will_do_unless_it_needs_sizes(self, name):
        """An object of five strides has some of them."""
        matcher = detloss.build_part("matcher", {"type": name})
        if matcher.needs_sizes:
            pytest.skip("it compares boxes")
        points, level_sizes = grid_points([(16, 16), (8, 8), (4, 4)], (8, 16, 32))
        truth = torch.tensor([[40.0, 40, 80, 80]])
        asked = asked_for(name, points, truth)
        predicted = {"level_sizes": level_sizes, "pred_boxes": truth + (points - truth) / 8}
        asked |= {key: value for key, value in predicted.items() if key in asked}
        assert matcher(points, truth, **asked).positive.any()

    @pytest.mark.parametrize("seed", range(4))
    def test_a_truth_that_overlaps_nothing_claims_nothing(self, name, seed):
        """R29."""
        truths = random_truths(6, seed=seed)
        alone = match(name, truths[1:])
        truths[0] += 1e4
        matches = match(name, truths)
        assert torch.equal(matches.positive, alone.positive)
        assert torch.equal(matches.ignored, alone.ignored)
        assert (matches.target_index[matches.positive] > 0).all()

    @pytest.mark.parametrize("flags", [None, []], ids=["no flags", "flags"])
    def test_no_objects(self, name, flags):
        """R12."""
        gt_ignore = None if flags is None else torch.tensor(flags, dtype=torch.bool)
        matches = match(name, torch.zeros(0, 4), gt_ignore=gt_ignore)
        assert matches.negative.all()
        assert (matches.target_index == 0).all()

    def test_no_anchors(self, name):
        assert len(match(name, random_truths(6, seed=0), anchors=ANCHORS[:0]).positive) == 0

    @pytest.mark.parametrize("seed", range(4))
    def test_in_an_ignore_region_nothing_is_background_and_nobody_answers_for_it(self, name, seed):
        """R47; outside, the anchors do not know of the region."""
        truths, region = random_truths(5, seed=seed), torch.tensor([[0.0, 0.0, 40.0, 30.0]])
        inside = pairwise_overlap(ANCHORS, region, kind="iof")[:, 0]
        without = match(name, truths)
        matches = match(name, torch.cat([region, truths]), gt_ignore=torch.arange(6) == 0)
        assert torch.equal(matches.positive, without.positive)
        assigned = matches.target_index[matches.positive]
        assert torch.equal(assigned, without.target_index[without.positive] + 1)
        assert not matches.negative[inside == 1].any()
        assert torch.equal(matches.negative[inside == 0], without.negative[inside == 0])

    def test_only_ignore_regions(self, name):
        """R47."""
        region = torch.tensor([[0.0, 0.0, 40.0, 30.0]])
        inside = pairwise_overlap(ANCHORS, region, kind="iof")[:, 0]
        matches = match(name, region, gt_ignore=torch.tensor([True]))
        assert not matches.positive.any()
        assert matches.ignored[inside == 1].all()
        assert matches.negative[inside == 0].all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_computed_in_float32(self, name, dtype):
        """R5: 10,000 px, whose square is beyond float16."""
        anchors, truths = (ANCHORS * 150).to(dtype), (random_truths(6, seed=1) * 150).to(dtype)
        found = match(name, truths, anchors=anchors)
        expected = match(name, truths.float(), anchors=anchors.float())
        assert found.positive.any()
        assert_close(told(found), told(expected))

    @pytest.mark.parametrize("seed", range(4))
    def test_the_order_of_the_truths_does_not_matter(self, name, seed):
        """The second half is the first again: which of two equal truths is assigned may differ."""
        truths = random_truths(4, seed=seed).repeat(2, 1)
        order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
        straight, shuffled = match(name, truths), match(name, truths[order])
        assert torch.equal(straight.positive, shuffled.positive)
        assert torch.equal(straight.ignored, shuffled.ignored)
        assert torch.equal(answered(straight, truths), answered(shuffled, truths[order]))

    @pytest.mark.parametrize("seed", range(4))
    def test_neither_blocks_nor_an_accelerator_s_way_change_a_match(self, name, seed, monkeypatch):
        """R29."""
        truths = random_truths(6, seed=seed)
        whole = told(match(name, truths))
        with without_host_sync():
            assert_close(told(match(name, truths)), whole)
        monkeypatch.setattr("detloss.matchers.tiles.CPU_PAIRS", 40)
        monkeypatch.setattr("detloss.matchers.tiles.TILE", 3)
        assert_close(told(match(name, truths)), whole)

    def test_under_a_compiler_it_is_one_graph(self, name):
        torch._dynamo.reset()
        matcher = detloss.build_part("matcher", {"type": name})
        compiled = torch.compile(matcher, fullgraph=True, backend="eager")
        for count in (5, 0):
            truths = random_truths(count, seed=3)
            inputs = asked_for(name, ANCHORS, truths)
            for flags in (None, torch.arange(count) == 1):
                found, expected = (
                    one(ANCHORS, truths, gt_ignore=flags, **inputs) for one in (compiled, matcher)
                )
                assert expected.positive.any() == (count > 0)
                assert_close(told(found), told(expected))

    @pytest.mark.parametrize("flags", [True, False], ids=["flags", "no flags"])
    def test_an_accelerator_is_asked_for_no_value(self, name, flags):
        """A meta tensor has none."""
        anchors, truths = ANCHORS.to("meta"), random_truths(6, seed=0).to("meta")
        gt_ignore = torch.zeros(6, dtype=torch.bool, device="meta") if flags else None
        inputs = {
            key: value.to("meta") if isinstance(value, torch.Tensor) else value
            for key, value in asked_for(name, anchors, truths).items()
        }
        matcher = detloss.build_part("matcher", {"type": name})
        matches = matcher(anchors, truths, gt_ignore=gt_ignore, **inputs)
        assert matches.positive.device.type == "meta"
        assert len(matches.positive) == len(anchors)

    @pytest.mark.gpu
    @pytest.mark.parametrize("seed", range(4))
    def test_a_gpu_gives_the_matches_of_a_cpu(self, name, seed):
        """On a grid, where distances, overlaps and areas tie."""
        truths = torch.cat([random_truths(6, seed=seed).round(), ANCHORS[40:42] + 2])
        flags = torch.arange(len(truths)) == 3
        inputs = asked_for(name, ANCHORS, truths)
        matcher = detloss.build_part("matcher", {"type": name})
        expected = matcher(ANCHORS, truths, gt_ignore=flags, **inputs)
        on_gpu = {
            key: value.cuda() if isinstance(value, torch.Tensor) else value
            for key, value in inputs.items()
        }
        boxes = ANCHORS.cuda(), truths.cuda()
        flags = flags.cuda()
        torch.cuda.set_sync_debug_mode("error")
        try:
            found = matcher(*boxes, gt_ignore=flags, **on_gpu)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert torch.equal(found.target_index.cpu(), expected.target_index)
        assert torch.equal(found.positive.cpu(), expected.positive)
        assert torch.equal(found.ignored.cpu(), expected.ignored)
        if expected.pairs is not None:
            assert torch.equal(found.listed_pairs.cpu(), expected.listed_pairs)

    def test_under_a_compiler_a_batch_is_one_graph(self, name):
        torch._dynamo.reset()
        matcher = detloss.build_part("matcher", {"type": name})
        anchors, truths = [ANCHORS] * 2, [random_truths(count, seed=3) for count in (5, 0)]
        inputs = [asked_for(name, ANCHORS, boxes) for boxes in truths]
        together = of_images(inputs)
        compiled = torch.compile(matcher.batch, fullgraph=True, backend="eager")
        for found, boxes, of_image in zip(
            compiled(anchors, truths, **together), truths, inputs, strict=True
        ):
            assert_close(told(found), told(matcher(ANCHORS, boxes, **of_image)))

    @pytest.mark.parametrize("flags", [True, False], ids=["flags", "no flags"])
    def test_a_batch_is_its_images(self, name, flags):
        truths = [random_truths(count, seed=count) for count in (3, 0, 6)]
        ignore = [torch.arange(len(boxes)) == 1 if flags else None for boxes in truths]
        anchors = [ANCHORS, ANCHORS + 2, ANCHORS * 0.9]
        asked = [asked_for(name, *one) for one in zip(anchors, truths, strict=True)]
        together = of_images(asked)
        matcher = detloss.build_part("matcher", {"type": name})
        batch = matcher.batch(anchors, truths, gt_ignore=ignore, **together)
        for i, found in enumerate(batch):
            alone = matcher(anchors[i], truths[i], gt_ignore=ignore[i], **asked[i])
            assert_close(told(found), told(alone))
        assert len(batch) == 3

    def test_a_batch_is_as_long_as_its_ground_truths(self, name):
        matcher = detloss.build_part("matcher", {"type": name})
        with pytest.raises(ValueError, match="anchors must be 1, one an image, got 2"):
            matcher.batch([ANCHORS, ANCHORS], [torch.zeros(0, 4)])
        with pytest.raises(ValueError, match="gt_ignore must be 2, one an image, got 1"):
            matcher.batch([ANCHORS, ANCHORS], [torch.zeros(0, 4)] * 2, gt_ignore=[None])
