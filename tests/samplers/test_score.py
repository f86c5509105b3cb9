"""Filtering by score: which negatives stay."""

import pytest
import torch
from torch.testing import assert_close

from detloss.classification import sigmoid_cross_entropy, softmax_cross_entropy
from detloss.samplers import ScoreSampler

INF = float("inf")


def loss_of(scores):
    """The cross-entropy of background anchors with these scores."""
    return -(1 - torch.tensor(scores, dtype=torch.float64)).log()


@pytest.mark.parametrize(
    ("threshold", "before", "scores", "after"),
    [
        pytest.param(0.01, "NNNN", [0.5, 0.02, 0.009, 0.0], "NNXX", id="RefineDet's 0.01"),
        pytest.param(0.5, "NNNN", [0.6, 0.5001, 0.4999, 1.0], "NNXN", id="a half"),
        pytest.param(0.5, "PPNN", [0.0, 0.9, 0.0, 0.9], "PPXN", id="every positive stays"),
        pytest.param(0.5, "XNX", [0.9, 0.1, 0.1], "XXX", id="ignored anchors stay ignored"),
        pytest.param(0.0, "NNP", [0.0, 0.5, 0.0], "NNP", id="threshold 0: all"),
        pytest.param(0.5, "NNN", [0.1, 0.2, 0.3], "XXX", id="all are sure: none"),
        pytest.param(0.5, "", [], "", id="no anchors"),
    ],
)
def test_worked_by_hand(threshold, before, scores, after, matches_of, word_of):
    kept = ScoreSampler(threshold=threshold)(matches_of(before), loss_of(scores))
    assert word_of(kept) == after


@pytest.mark.parametrize("threshold", [0.01, 0.3, 0.9])
def test_the_score_of_a_softmax_is_what_is_not_background(threshold, matches_of):
    logits = 3 * torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    loss = softmax_cross_entropy(logits, torch.full((200,), 3))
    kept = ScoreSampler(threshold=threshold)(matches_of("N" * 200), loss)
    background = logits.softmax(-1)[:, 3]
    assert torch.equal(kept.negative, background <= 1 - threshold)
    assert 0 < kept.negative.sum() < 200


@pytest.mark.parametrize("threshold", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("classes", [1, 3])
def test_the_score_of_yes_or_no_classes_is_that_of_any(threshold, classes, matches_of):
    logits = 4 * torch.randn(200, classes, generator=torch.Generator().manual_seed(1)) - 3
    loss = sigmoid_cross_entropy(logits, torch.full((200,), classes)).sum(-1)
    kept = ScoreSampler(threshold=threshold)(matches_of("N" * 200), loss)
    none = (1 - logits.double().sigmoid()).prod(-1)
    assert torch.equal(kept.negative, none <= 1 - threshold)
    assert 0 < kept.negative.sum() < 200


def test_an_infinite_loss_is_a_score_of_1(matches_of, word_of):
    kept = ScoreSampler(threshold=0.999)(matches_of("NN"), torch.tensor([INF, 1.0]))
    assert word_of(kept) == "NX"


def test_small_scores_are_told_apart(matches_of, word_of):
    """``1 - exp(-loss)`` as a difference has no digits left below 1e-7."""
    loss = torch.tensor([1e-9, 3e-9])
    assert word_of(ScoreSampler(threshold=2e-9)(matches_of("NN"), loss)) == "XN"


def test_positives_keep_their_truth_and_no_gradient_is_recorded(matches_of):
    matches = matches_of("PNP")
    loss = torch.tensor([0.0, 0.0, 0.0], requires_grad=True)
    kept = ScoreSampler()(matches, loss)
    assert_close(kept.target_index, matches.target_index)
    assert kept.ignored.tolist() == [False, True, False]
    assert not kept.ignored.requires_grad


@pytest.mark.parametrize("loss", [None, torch.zeros(2)])
def test_rejects(loss, matches_of):
    with pytest.raises(ValueError, match=r"class_loss must have shape \(3,\), got"):
        ScoreSampler()(matches_of("PNN"), loss)


@pytest.mark.parametrize(
    ("threshold", "message"),
    [(1.0, "less than 1, got 1.0"), (-0.1, "greater than or equal to 0, got -0.1")],
)
def test_rejects_options(threshold, message):
    with pytest.raises(ValueError, match=f"threshold: expected a value {message}"):
        ScoreSampler(threshold=threshold)
