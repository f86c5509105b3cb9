"""W ranks with B images each learn what one process with W B images learns (R9, R13)."""

import pytest
import torch
from torch.multiprocessing import spawn
from torch.testing import assert_close
from two_ranks import RANKS, SCENARIOS, STEPS, learned, work


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory):
    """What each rank found, of two processes that talk by gloo."""
    folder = tmp_path_factory.mktemp("ranks")
    spawn(work, (folder,), nprocs=RANKS)
    return [torch.load(folder / str(rank)) for rank in range(RANKS)]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_ranks_learn_what_one_process_learns(of_ranks, scenario):
    alone, names = learned(scenario)
    for found in of_ranks:
        state, rank_names = found["learned"][scenario]
        assert rank_names == names
        assert_close(state, alone)


def test_all_normalizers_of_a_criterion_ask_once_a_step(of_ranks):
    assert [found["asked"]["step"] for found in of_ranks] == [1, 1]


@pytest.mark.parametrize("mode", ["evaluation", "without sync"])
def test_a_rank_may_call_alone(of_ranks, mode):
    """Rank 0 did, while rank 1 went on."""
    assert [found["asked"][mode] for found in of_ranks] == [0, 0]


def test_the_floor_applies_to_the_sum_of_the_ranks_unless_it_comes_after(of_ranks):
    """One positive on two ranks: max(1, 1) / 2, or as other code has it max(1 / 2, 1)."""
    assert [found["floors"] for found in of_ranks] == [{False: 0.5, True: 1.0}] * 2


def test_buffers_of_a_criterion_are_equal_on_all_ranks_under_ddp(of_ranks):
    """The moving averages, which each rank moves, and the weights of classes, which none does."""
    first, second = (found["wrapped"] for found in of_ranks)
    assert len(first) == STEPS
    for one, other in zip(first, second, strict=True):
        names = {"alpha", "class_weight", "average", "running_mean"}
        assert {name.rpartition(".")[2] for name in one} == names
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name]), name
    averages = [step["module.criterion.normalizer.average"].item() for step in first]
    assert averages[0] != averages[1] != averages[2]
    weights = first[-1]["module.criterion.terms.classification.loss.class_weight"]
    assert weights.tolist() == [1.0, 2.0, 3.0]
