"""The losses of other packages, as far as they are installed: they are what ours are."""

import pytest
from losses import build, distance

from detloss.bench.cases import peers
from detloss.bench.cases.peers import PEERS, Peer, peers_of
from detloss.registry import CLASSIFICATION, REGRESSION

INSTALLED = [
    pytest.param(name, peer, id=f"{name}-{peer.package}")
    for name, found in PEERS.items()
    for peer in found
    if peer.module in ("torch.nn.functional", "torchvision.ops")
]


def test_a_peer_is_one_of_a_registered_loss():
    assert set(PEERS) <= {*REGRESSION.names(), *CLASSIFICATION.names()}


@pytest.mark.parametrize(("name", "peer"), INSTALLED)
def test_a_peer_computes_the_same(name, peer):
    section = "box" if name in REGRESSION else "classification"
    assert distance(build(section, name, **peer.options), peer) < 1e-7


def test_those_that_are_missing_or_need_options_are_left_out(monkeypatch):
    missing = Peer("no_package.losses", vars)
    found = [*PEERS["l1"][:1], missing, *(peer.of(beta=0.0) for peer in PEERS["huber"])]
    monkeypatch.setattr(peers, "PEERS", {"l1": found})
    assert missing.loss() is None
    assert list(peers_of("l1")) == ["PyTorch"]
    assert peers_of("l2") == {}
