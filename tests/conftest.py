"""Settings for every test: deterministic, and GPU tests only where there is a GPU."""

import pytest
import torch
from hypothesis import settings

settings.register_profile("detloss", derandomize=True, deadline=None, database=None)
settings.load_profile("detloss")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _subnormal_numbers():
    """Compiled code of older releases of PyTorch turns them off in the process that loads it."""
    torch.set_flush_denormal(False)


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
