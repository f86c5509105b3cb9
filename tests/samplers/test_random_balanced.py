"""Random balanced sampling: how many of each, and that it is chance that may be repeated."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from detloss.samplers import RandomBalancedSampler


@pytest.mark.parametrize(
    ("size", "fraction", "word", "positives", "negatives"),
    [
        pytest.param(4, 0.5, "PPPPNNNN", 2, 2, id="half and half"),
        pytest.param(4, 0.25, "PPPPNNNN", 1, 3, id="a quarter"),
        pytest.param(4, 0.5, "PNNNNNN", 1, 3, id="few positives: negatives fill up"),
        pytest.param(4, 0.5, "NNNNNNN", 0, 4, id="no positives: negatives only"),
        pytest.param(4, 0.5, "PPPPPPN", 2, 1, id="few negatives: positives do not fill up"),
        pytest.param(4, 0.0, "PPPPNNNNN", 0, 4, id="share 0"),
        pytest.param(4, 1.0, "PPPPPNNNN", 4, 0, id="share 1"),
        pytest.param(3, 0.5, "PPPPNNNN", 1, 2, id="3 / 2 rounded down"),
        pytest.param(256, 0.5, "PPNNXX", 2, 2, id="all there are"),
        pytest.param(4, 0.5, "XXXXXX", 0, 0, id="all ignored"),
        pytest.param(4, 0.5, "", 0, 0, id="no anchors"),
    ],
)
def test_counts_worked_by_hand(size, fraction, word, positives, negatives, matches_of):
    sampler = RandomBalancedSampler(size=size, positive_fraction=fraction)
    kept = sampler(matches_of(word))
    assert (kept.positive.sum(), kept.negative.sum()) == (positives, negatives)


@given(
    word=st.text("PNX", max_size=40),
    size=st.integers(1, 30),
    fraction=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_only_takes_away_and_never_more_than_size(word, size, fraction, matches_of, word_of):
    matches = matches_of(word)
    kept = RandomBalancedSampler(size=size, positive_fraction=fraction)(matches)
    after = word_of(kept)
    assert all(new in (old, "X") for old, new in zip(word, after, strict=True))
    assert after.count("P") == min(word.count("P"), int(size * fraction))
    assert after.count("N") == min(word.count("N"), size - after.count("P"))
    assert torch.equal(kept.target_index, torch.where(kept.positive, matches.target_index, 0))


@pytest.mark.parametrize("word", ["P" * 40 + "N" * 60, "P" * 5 + "N" * 60, "P" * 40 + "N" * 5])
@pytest.mark.parametrize("fraction", [0.25, 0.5])
def test_counts_agree_with_torchvision(word, fraction, matches_of):
    labels = torch.tensor([float(letter == "P") for letter in word])
    (positive,), (negative,) = BalancedPositiveNegativeSampler(32, fraction)([labels])
    kept = RandomBalancedSampler(size=32, positive_fraction=fraction)(matches_of(word))
    assert (kept.positive.sum(), kept.negative.sum()) == (positive.sum(), negative.sum())


def test_a_seed_repeats_the_choice(matches_of, word_of):
    sampler, matches = RandomBalancedSampler(size=20), matches_of("PN" * 50)
    choices = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        choices.append(word_of(sampler(matches)))
    assert choices[0] == choices[1]
    assert choices[0] != choices[2]


def test_two_calls_differ(matches_of, word_of):
    sampler, matches = RandomBalancedSampler(size=20), matches_of("PN" * 50)
    assert word_of(sampler(matches)) != word_of(sampler(matches))


@pytest.mark.parametrize("letter", ["P", "N"])
def test_each_candidate_has_the_same_chance(letter, matches_of, word_of):
    # 4 of 10 are kept in 1000 draws: 400 each, standard deviation 15.5
    other = "N" if letter == "P" else "P"
    matches = matches_of(letter * 10 + other * 10)
    sampler = RandomBalancedSampler(size=8)
    draws = [word_of(sampler(matches)) for _ in range(1000)]
    for i in range(10):
        assert abs(sum(word[i] == letter for word in draws) - 400) < 5 * 15.5


def test_the_matches_given_are_not_changed(matches_of, word_of):
    matches = matches_of("PPPNNN")
    before = matches.target_index.clone()
    RandomBalancedSampler(size=2)(matches)
    assert word_of(matches) == "PPPNNN"
    assert torch.equal(matches.target_index, before)


def test_needs_no_loss():
    assert not RandomBalancedSampler().needs_class_loss


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": 0}, ValueError, "size: expected a value greater than 0, got 0"),
        ({"size": 0.5}, TypeError, r"size: expected a valid integer, got 0\.5"),
        ({"positive_fraction": 1.5}, ValueError, "positive_fraction: .* less than or equal to 1"),
        (
            {"positive_fraction": -0.5},
            ValueError,
            "positive_fraction: .* greater than or equal to 0",
        ),
    ],
)
def test_rejects_options(options, error, message):
    with pytest.raises(error, match=message):
        RandomBalancedSampler(**options)
