"""Which device a run uses."""

import functools
import os

import torch

from util.errors import UserError


@functools.cache
def _say_once(message: str) -> None:
    print(message)


def cpu_cores() -> int:
    """Number of CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_device(gpu_ids: list[int]) -> torch.device:
    """The first GPU of --gpu_ids, or the CPU where none is asked for or usable.

    Args:
        gpu_ids: GPU numbers; empty for the CPU.

    Raises:
        UserError: this machine has GPUs, but not that one.
    """
    if not gpu_ids:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        _say_once("no usable GPU: running on the CPU (--gpu_ids=-1 asks for that)")
        return torch.device("cpu")
    if gpu_ids[0] >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise UserError(
            f"--gpu_ids: there is no GPU {gpu_ids[0]}, this machine has "
            + (f"0 to {last}" if last else "only GPU 0")
        )
    if len(gpu_ids) > 1:
        _say_once(f"--gpu_ids: only GPU {gpu_ids[0]} is used, several are not supported yet")
    device = torch.device("cuda", gpu_ids[0])
    # Triton's kernels, the thread that pins batches and questions on what a GPU can go to this one.
    torch.cuda.set_device(device)
    return device
