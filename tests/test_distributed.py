"""W ranks with B images each learn what one process with W B images learns (R9, R13)."""

import pytest
import torch
from torch.multiprocessing import spawn
from torch.testing import assert_close
from two_ranks import RANKS, SCENARIOS, learned, work


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory):
    """What each rank learned in each scenario, from two processes that talk by gloo."""
    folder = tmp_path_factory.mktemp("ranks")
    spawn(work, (folder,), nprocs=RANKS)
    return [torch.load(folder / str(rank)) for rank in range(RANKS)]


@pytest.mark.parametrize(("name", "kind"), SCENARIOS)
def test_ranks_learn_what_one_process_learns(of_ranks, name, kind):
    alone, names = learned(name, kind)
    for found in of_ranks:
        state, rank_names = found[name, kind]
        assert rank_names == names
        assert_close(state, alone)
