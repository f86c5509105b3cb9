"""What is counted as a launch, a pass and a host sync."""

import pytest
import torch
from torch.nn import functional

from detloss.bench import launches
from detloss.bench.launches import Counts, count, count_cases, counts_table
from detloss.bench.measure import Case

X = torch.empty(6, 4, device="meta")


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        pytest.param(lambda: X + X, Counts(1, 3.0, 0), id="two read, one written"),
        pytest.param(lambda: X.clone().mul_(2), Counts(2, 4.0, 0), id="in place is written too"),
        pytest.param(
            lambda: X.view(4, 6).t()[1:].detach().unsqueeze(0).split(1),
            Counts(0, 0.0, 0),
            id="views are free",
        ),
        pytest.param(lambda: torch.empty_like(X), Counts(0, 0.0, 0), id="memory is free"),
        pytest.param(lambda: X.new_empty(3), Counts(0, 0.0, 0), id="of another size too"),
        pytest.param(lambda: torch.zeros_like(X), Counts(1, 2.0, 0), id="but not filling it"),
        pytest.param(lambda: torch.cat([X, X]), Counts(1, 4.0, 0), id="tensors in a list"),
        pytest.param(lambda: torch.exp(X, out=X), Counts(1, 3.0, 0), id="out= is an argument"),
        pytest.param(lambda: X.half(), Counts(1, 1.5, 0), id="a pass is bytes, not values"),
    ],
)
def test_counts_worked_by_hand(run, expected):
    assert count(run, X.nbytes) == expected


def test_the_backward_pass_counts():
    """PyTorch's own cross-entropy: two operators forward, the gradient of 1, two backward."""
    logits = torch.empty(1000, 80, device="meta", requires_grad=True)
    labels = torch.empty(1000, dtype=torch.long, device="meta")
    found = count(lambda: functional.cross_entropy(logits, labels).backward(), logits.nbytes)
    assert found.launches == 5
    assert found.passes == pytest.approx(8.05, abs=0.01)


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(lambda x: x.sum().item(), id="item"),
        pytest.param(lambda x: bool((x > 0).all()), id="bool"),
        pytest.param(lambda x: x.nonzero(), id="nonzero"),
        pytest.param(lambda x: x[x[:, 0] > 0], id="mask"),
        pytest.param(lambda x: x.masked_select(x > 0), id="masked_select"),
        pytest.param(lambda x: x.unique(), id="unique"),
    ],
)
def test_what_the_host_waits_for_counts_on_a_cpu_and_fails_without_values(run):
    x = torch.randn(6, 4)
    assert count(lambda: run(x), x.nbytes).host_syncs >= 1
    with pytest.raises((RuntimeError, NotImplementedError)):
        count(lambda: run(X), X.nbytes)


def test_indices_are_no_host_sync():
    x, rows = torch.randn(6, 4), torch.tensor([1, 3])
    assert count(lambda: x[rows], x.nbytes).host_syncs == 0


def asks(device, scale):
    """A case whose second runner asks for a value."""
    x = torch.zeros(4, device=device)
    runners = {"detloss": lambda: [x + 1], "peer": lambda: [x[x > 0]]}
    return Case("asks", runners, x.nbytes)


def test_a_peer_that_asks_for_values_is_counted_on_a_cpu(monkeypatch):
    monkeypatch.setattr(launches, "COUNTED", {"asks": asks})
    (found,) = count_cases(["asks"])
    assert found.counts["detloss"] == Counts(1, 2.0, 0)
    assert found.counts["peer"].host_syncs == 1
    assert counts_table([found], "here").row_count == 2


def test_detloss_may_not_ask(monkeypatch):
    def build(device, scale):
        case = asks(device, scale)
        return Case("asks", {"detloss": case.runners["peer"]}, case.input_bytes)

    monkeypatch.setattr(launches, "COUNTED", {"asks": build})
    with pytest.raises((RuntimeError, NotImplementedError)):
        count_cases(["asks"])
