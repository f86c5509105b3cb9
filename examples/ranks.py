"""One process, or several that ``torchrun`` started: who does what, and how they agree."""

import os
import sys

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


def join(device: str) -> None:
    """Meets the other processes, if ``torchrun`` started several.

    Raises:
        ValueError: If this process cannot use the device.
    """
    check_device(device)
    if several() and not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")


def several() -> bool:
    """Whether ``torchrun`` started more than one process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def check_device(device: str) -> None:
    """Refuses a device that this process cannot use; of several processes each has its own GPU.

    Raises:
        ValueError: If PyTorch does not know the device, or the machine does not have it.
    """
    try:
        if several() and device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {device} cannot be used here: {reason}") from None


def launcher() -> list[str]:
    """The command that starts a program as this one was started."""
    several = ["-m", "torch.distributed.run", "--nproc-per-node", str(count())]
    return [sys.executable, *(several if count() > 1 else [])]


def leave() -> None:
    """Parts from the others."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def count() -> int:
    """How many processes share the work."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0; the first also evaluates, draws and writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def own(places: range) -> range:
    """The share of this process in the places of a batch."""
    share = len(places) // count()
    return places[rank() * share : (rank() + 1) * share]


def averaging(model: nn.Module) -> nn.Module:
    """`model` with gradients averaged over the processes."""
    return DistributedDataParallel(model) if count() > 1 else model


def mean(values: Tensor) -> Tensor:
    """The average of `values` over the processes."""
    if count() > 1:
        values = values.clone()
        distributed.all_reduce(values)
    return values / count()
