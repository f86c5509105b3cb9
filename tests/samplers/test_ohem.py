"""Online hard example mining: how many anchors, and which."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detloss.samplers import HardNegativeSampler, OHEMSampler

INF = float("inf")


@pytest.mark.parametrize(
    ("options", "before", "loss", "after"),
    [
        pytest.param(
            {"size": 3}, "PPNNN", [1.0, 5.0, 4.0, 2.0, 3.0], "XPNXN", id="the 3 hardest of all"
        ),
        pytest.param({"size": 2}, "PPNN", [1.0, 2.0, 3.0, 4.0], "XXNN", id="no positive is hard"),
        pytest.param({"size": 2}, "PPNN", [3.0, 4.0, 1.0, 2.0], "PPXX", id="no negative is hard"),
        pytest.param({"size": 2}, "PXN", [1.0, 9.0, 2.0], "PXN", id="ignored anchors never count"),
        pytest.param(
            {"size": 4, "positive_fraction": 0.5},
            "PPPNNN",
            [9.0, 7.0, 8.0, 1.0, 3.0, 2.0],
            "PXPXNN",
            id="half: two of each, whatever their losses",
        ),
        pytest.param(
            {"size": 4, "positive_fraction": 0.5},
            "PNNNN",
            [0.0, 1.0, 4.0, 3.0, 2.0],
            "PXNNN",
            id="few positives: negatives fill up",
        ),
        pytest.param(
            {"size": 4, "positive_fraction": 0.5},
            "PPPN",
            [1.0, 2.0, 3.0, 0.0],
            "XPPN",
            id="few negatives: positives do not fill up",
        ),
        pytest.param(
            {"size": 3, "positive_fraction": 0.5},
            "PPNNN",
            [1.0, 2.0, 3.0, 4.0, 5.0],
            "XPXNN",
            id="3 / 2 rounded down: one positive",
        ),
        pytest.param(
            {"size": 2, "positive_fraction": 0.0}, "PPN", [9.0, 9.0, 0.0], "XXN", id="share 0"
        ),
        pytest.param(
            {"size": 2, "positive_fraction": 1.0}, "PPPN", [1.0, 3.0, 2.0, 9.0], "XPPX", id="all"
        ),
        pytest.param({"size": 2}, "NNN", [1.0, 1.0, 1.0], "NNX", id="a tie keeps the first"),
        pytest.param({"size": 1}, "NPN", [1.0, 2.0, INF], "XXN", id="an infinite loss is hardest"),
        pytest.param({"size": 9}, "PNX", [1.0, 2.0, 3.0], "PNX", id="more than there are"),
        pytest.param({"size": 2}, "NNN", [1.0, 2.0, 3.0], "XNN", id="no positives"),
        pytest.param({"size": 2}, "XX", [1.0, 2.0], "XX", id="all ignored"),
        pytest.param({"size": 2, "positive_fraction": 0.5}, "", [], "", id="no anchors"),
    ],
)
def test_worked_by_hand(options, before, loss, after, matches_of, word_of):
    kept = OHEMSampler(**options)(matches_of(before), torch.tensor(loss))
    assert word_of(kept) == after


@given(
    rows=st.lists(st.tuples(st.sampled_from("PNNNX"), st.integers(0, 5)), max_size=40),
    size=st.integers(1, 30),
    fraction=st.sampled_from([None, 0.0, 0.25, 0.5, 1.0]),
)
def test_keeps_the_head_of_the_sorted_anchors(rows, size, fraction, matches_of, word_of):
    word, loss = "".join(letter for letter, _ in rows), [float(value) for _, value in rows]

    def head(letters, count):
        of_letters = [i for i, letter in enumerate(word) if letter in letters]
        return sorted(of_letters, key=lambda i: (-loss[i], i))[:count]

    if fraction is None:
        kept = head("PN", size)
    else:
        kept = head("P", int(size * fraction))
        kept += head("N", size - len(kept))
    expected = "".join(letter if i in kept else "X" for i, letter in enumerate(word))
    sampler = OHEMSampler(size=size, positive_fraction=fraction)
    assert word_of(sampler(matches_of(word), torch.tensor(loss))) == expected


def test_with_room_for_all_positives_it_is_hard_negative_mining(matches_of, word_of):
    matches, loss = matches_of("PNNPNNNNN"), torch.rand(9)
    expected = HardNegativeSampler(ratio=3 / 2)(matches, loss)
    kept = OHEMSampler(size=5, positive_fraction=0.5)(matches, loss)
    assert word_of(kept) == word_of(expected)


def test_positives_keep_their_truth_and_the_matches_given_are_not_changed(matches_of, word_of):
    matches = matches_of("PNPNP")
    kept = OHEMSampler(size=2)(matches, torch.tensor([1.0, 0.0, 3.0, 0.0, 2.0]))
    assert kept.target_index.tolist() == [0, 0, 2, 0, 3]
    assert word_of(matches) == "PNPNP"


def test_no_gradient_is_recorded(matches_of):
    loss = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
    assert not OHEMSampler(size=1)(matches_of("PNN"), loss).ignored.requires_grad


@pytest.mark.parametrize(
    ("loss", "got"),
    [(None, "None"), (torch.zeros(2), r"\(2,\)"), (torch.zeros(3, 4), r"\(3, 4\)")],
)
def test_rejects(loss, got, matches_of):
    with pytest.raises(ValueError, match=rf"class_loss must have shape \(3,\), got {got}"):
        OHEMSampler()(matches_of("PNN"), loss)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": 0}, ValueError, "size: expected a value greater than 0, got 0"),
        ({"positive_fraction": 1.5}, ValueError, "positive_fraction: .* less than or equal to 1"),
    ],
)
def test_rejects_options(options, error, message):
    with pytest.raises(error, match=message):
        OHEMSampler(**options)
