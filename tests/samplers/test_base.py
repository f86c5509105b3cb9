"""What every sampler does with matches, and what samplers share."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scenes import CLASSES, grid_anchors, random_predictions, random_targets
from torch.testing import assert_close

import detloss
from detloss.bench.launches import count
from detloss.matchers import Matches
from detloss.registry import SAMPLERS
from detloss.samplers import Sampler
from detloss.samplers.base import keep_smallest, leave_out

INF = float("inf")


@pytest.mark.parametrize("name", SAMPLERS.names())
class TestEverySampler:
    def test_hands_on_score_and_pairs_of_what_stays(self, name):
        """Of 800 anchors, half of them positive, every sampler leaves some out or none."""
        positive = torch.arange(800) % 2 == 0
        score = torch.where(positive, torch.rand(800), 0)
        pairs = torch.stack([torch.arange(0, 800, 2), torch.arange(400) % 5], 1).repeat(2, 1)
        pairs[400:, 1] += 1  # each positive is assigned to two ground truths
        index = torch.where(positive, torch.arange(800) // 2 % 5, 0)
        matches = Matches(index, positive, torch.zeros(800, dtype=torch.bool), score, pairs)
        kept = detloss.build_part("sampler", {"type": name})(matches, torch.rand(800))
        assert kept.sampled
        assert not matches.sampled
        assert torch.equal(kept.score, torch.where(kept.positive, score, 0))
        assert torch.equal(kept.pairs, pairs[kept.positive[pairs[:, 0]]])
        assert torch.equal(kept.target_index, torch.where(kept.positive, index, 0))

    def test_neither_score_nor_pairs_stay_none(self, name, matches_of):
        kept = detloss.build_part("sampler", {"type": name})(matches_of("PNNX"), torch.rand(4))
        assert kept.score is None
        assert kept.pairs is None

    @pytest.mark.parametrize("with_score", [True, False, None], ids=["scores", "none", "some"])
    def test_a_batch_is_its_images(self, name, with_score, matches_of):
        """A random choice too: both take the numbers of a generator in the same order."""
        generator = torch.Generator().manual_seed(0)
        words = ["".join("PNNXN"[i] for i in torch.randint(0, 5, (700,))) for _ in range(3)]
        matches = [matches_of(word) for word in [*words, "N" * 700]]
        for image, match in enumerate(matches):
            if with_score or (with_score is None and image == 1):
                score = torch.rand(700, generator=generator)
                matches[image] = dataclasses.replace(match, score=score)
        losses = torch.rand(4, 700, generator=generator)
        sampler = detloss.build_part("sampler", {"type": name})
        torch.manual_seed(0)
        alone = [sampler(*one) for one in zip(matches, losses, strict=True)]
        torch.manual_seed(0)
        together = sampler.batch(matches, losses)
        for found, expected in zip(together, alone, strict=True):
            assert_close(dataclasses.astuple(found), dataclasses.astuple(expected))

    def test_launches_do_not_grow_with_the_batch(self, name):
        sampler = detloss.build_part("sampler", {"type": name})

        def launches(images):
            no = torch.zeros(9, dtype=torch.bool, device="meta")
            matches = [Matches(no.long(), no, no, score=no.float()) for _ in range(images)]
            losses = torch.zeros(images, 9, device="meta")
            return count(lambda: sampler.batch(matches, losses), 1)

        assert launches(16).launches == launches(2).launches
        assert not launches(2).host_syncs


def test_a_sampler_may_choose_for_one_image_at_a_time(matches_of):
    class First(Sampler):
        def forward(self, matches, class_loss=None):
            left_out = torch.arange(len(matches.positive)) > 0
            return dataclasses.replace(matches, ignored=matches.ignored | left_out, sampled=True)

    done = dataclasses.replace(matches_of("NNN"), sampled=True)
    found = First().batch([matches_of("NNN"), done])
    assert found[0].negative.tolist() == [True, False, False]
    assert found[1] is done


def test_a_pair_stays_where_its_anchor_is_ignored_by_the_matcher(matches_of):
    """YOLOF: one of an anchor's pairs is ignored, the other counts."""
    matches = Matches(
        torch.tensor([0, 0]),
        torch.tensor([False, True]),
        torch.tensor([True, False]),
        pairs=torch.tensor([[0, 2], [1, 0]]),
    )
    kept = leave_out(matches, torch.tensor([False, True]))
    assert kept.pairs.tolist() == [[0, 2]]
    assert kept.ignored.tolist() == [True, True]


@pytest.mark.parametrize(
    ("candidates", "keys", "count", "expected"),
    [
        pytest.param("1111", [3.0, 1.0, 4.0, 2.0], 2, "0101", id="the two smallest"),
        pytest.param("1101", [3.0, 1.0, 0.0, 2.0], 2, "0101", id="the smallest is no candidate"),
        pytest.param("1111", [1.0, 0.0, 1.0, 1.0], 3, "1110", id="of equal keys the first"),
        pytest.param("0111", [0.0, 5.0, 5.0, 5.0], 1, "0100", id="the first candidate, not anchor"),
        pytest.param("1010", [1.0, 2.0, 3.0, 4.0], 9, "1010", id="more asked than there are"),
        pytest.param("1010", [1.0, 2.0, 3.0, 4.0], 0, "0000", id="none asked"),
        pytest.param("1010", [1.0, 2.0, 3.0, 4.0], -1, "0000", id="fewer than none"),
        pytest.param("0000", [1.0, 2.0, 3.0, 4.0], 2, "0000", id="no candidates"),
        pytest.param("0011", [1.0, 2.0, INF, 3.0], 2, "0011", id="an infinite key still counts"),
        pytest.param("0011", [INF, INF, INF, INF], 1, "0010", id="all keys infinite"),
        pytest.param("1111", [0.0, -INF, 1.0, 2.0], 2, "1100", id="minus infinity is smallest"),
    ],
)
@pytest.mark.parametrize("as_tensor", [True, False], ids=["tensor", "int"])
def test_worked_by_hand(candidates, keys, count, expected, as_tensor):
    mask = torch.tensor([letter == "1" for letter in candidates])
    kept = keep_smallest(mask, torch.tensor(keys), torch.tensor(count) if as_tensor else count)
    assert kept.tolist() == [letter == "1" for letter in expected]


def test_no_anchors():
    nothing = torch.zeros(0, dtype=torch.bool)
    assert keep_smallest(nothing, torch.zeros(0), 3).shape == (0,)


rows = st.lists(
    st.tuples(st.booleans(), st.sampled_from([-INF, -1.0, 0.0, 0.5, 2.0, INF])), max_size=40
)


@given(rows, st.integers(0, 45))
def test_is_the_head_of_the_sorted_candidates(rows, count):
    keys_of = {i: key for i, (is_candidate, key) in enumerate(rows) if is_candidate}
    head = sorted(keys_of, key=lambda i: (keys_of[i], i))[:count]
    candidates = torch.tensor([is_candidate for is_candidate, _ in rows], dtype=torch.bool)
    kept = keep_smallest(candidates, torch.tensor([key for _, key in rows]), count)
    assert kept.nonzero().flatten().tolist() == sorted(head)


def test_given_matches_are_sampled_unless_they_say_that_they_are():
    """SSD: of all negatives the loss of given matches would be many times that of three each."""
    anchors, targets = grid_anchors(), random_targets([2])
    criterion = detloss.build(
        {
            "matcher": {"type": "max_iou"},
            "sampler": {"type": "hard_negative"},
            "classification": {"type": "softmax_cross_entropy"},
        }
    )
    predictions = random_predictions(1, len(anchors), classes=CLASSES + 1)
    expected = criterion(predictions, targets, anchors=anchors)
    (raw,) = criterion.matcher.batch([anchors], [targets[0]["boxes"]])
    output = criterion(predictions, targets, anchors=anchors, matches=[raw])
    assert not raw.sampled
    assert torch.equal(output.total, expected.total)
    assert output.matches[0].sampled
    kept = criterion(predictions, targets, anchors=anchors, matches=expected.matches)
    assert kept.matches[0] is expected.matches[0]
    everything = dataclasses.replace(raw, sampled=True)
    unsampled = criterion(predictions, targets, anchors=anchors, matches=[everything])
    assert unsampled.total > output.total
