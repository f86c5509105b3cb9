"""The matcher's own measure of how good a match is."""

from types import SimpleNamespace

import pytest
import torch
from scenes import build

import detloss
from detloss.qualities import ScoreQuality
from detloss.registry import MATCHERS


def test_is_what_the_matcher_says():
    assert ScoreQuality()(SimpleNamespace(score=torch.tensor([0.5, 0.0]))).tolist() == [0.5, 0]


@pytest.mark.parametrize("name", [n for n in MATCHERS.names() if not MATCHERS[n].scores])
@pytest.mark.parametrize("section", ["label", "weigh_by"])
def test_a_matcher_that_has_none_is_refused_when_the_config_is_built(name, section):
    term = {"label": "classification", "weigh_by": "box"}[section]
    loss = {"label": "sigmoid_cross_entropy", "weigh_by": "giou"}[section]
    with pytest.raises(
        detloss.ConfigError,
        match=f"{term}: a score comes from the matcher, and {name} has none",
    ):
        build(matcher={"type": name}, **{term: {"type": loss, section: "score"}})
