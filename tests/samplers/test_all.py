"""Every matched anchor counts."""

import pytest
import torch

from detloss.samplers import AllSampler


@pytest.mark.parametrize("word", ["PNXN", "NNNN", "PPPP", "XXXX", ""])
@pytest.mark.parametrize("with_loss", [True, False])
def test_matches_are_handed_on(word, with_loss, matches_of, word_of):
    matches = matches_of(word)
    kept = AllSampler()(matches, torch.rand(len(word)) if with_loss else None)
    assert torch.equal(kept.target_index, matches.target_index)
    assert kept.sampled
    assert word_of(kept) == word


def test_needs_no_loss():
    assert not AllSampler().needs_class_loss


def test_has_no_options():
    with pytest.raises(TypeError, match="size"):
        AllSampler(size=256)
