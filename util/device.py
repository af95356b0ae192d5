"""Which device a run uses, and how fast and how exact it computes there."""

import argparse
import ctypes
import functools
import os
import platform
import shutil

import torch
from torch import nn

from util.argument_types import boolean
from util.command_line import Parser
from util.errors import UserError

AMP_TYPES = {"off": torch.float32, "bf16": torch.bfloat16}

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
_MALLOC_VARIABLES = (
    "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES",
)  # fmt: skip


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


def add_speed_options(parser: Parser) -> None:
    """Add the options on speed, which hold for every model."""
    group = parser.add_argument_group("speed")
    group.add_argument(
        "--tf32",
        type=boolean,
        default=True,
        help="convolutions on a GPU round their float32 factors to TF32; "
        "matrix products, which are in the losses, never do",
    )
    group.add_argument(
        "--deterministic",
        action="store_true",
        help="the same numbers in every run also on a GPU, at some cost; on a CPU they always are",
    )
    group.add_argument(
        "--amp",
        choices=tuple(AMP_TYPES),
        default="off",
        help="bf16: networks compute in bfloat16; weights, losses and optimisers stay in float32",
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile the networks: the first iterations take minutes; needs a C++ compiler",
    )
    group.add_argument(
        "--channels_last",
        action="store_true",
        help="lay out the networks' features in memory as [B, H, W, C]",
    )


def set_up_device(options: argparse.Namespace) -> None:
    """Make the process compute as --tf32 and --deterministic say. To be called before CUDA starts.

    On the CPU of a machine with glibc it also keeps freed memory for the next iteration.
    """
    torch.backends.cudnn.allow_tf32 = options.tf32
    # All batches have one size, so it pays to try once which convolution is fastest.
    torch.backends.cudnn.benchmark = not options.deterministic
    if options.deterministic:
        # cuBLAS reads it when it starts; without it, its workspaces depend on timing.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        # Nothing here reads memory it has not written.
        torch.utils.deterministic.fill_uninitialized_memory = False
    if not options.gpu_ids or not torch.cuda.is_available():
        keep_freed_memory()


def keep_freed_memory() -> bool:
    """Have glibc's malloc reuse freed memory rather than return it to the system at once.

    By default every tensor above 32 MiB is mapped anew, and touching its pages for the first time
    takes longer than most operations on them. Costs little memory: a program here frees and
    allocates the same sizes for every batch, and the heap stops growing after some. What the user
    has set in the environment stays in force. For the whole process, so only programs call it.

    Returns:
        Whether it did anything (it does not without glibc).
    """
    is_set = any(name in os.environ for name in _MALLOC_VARIABLES)
    if platform.libc_ver()[0] != "glibc" or is_set:
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # No block in a mapping of its own, and nothing given back from the end of the heap.
    return mallopt(_M_MMAP_MAX, 0) == 1 and mallopt(_M_TRIM_THRESHOLD, -1) == 1


def check_bfloat16(device: torch.device) -> None:
    """Raise UserError if a GPU cannot compute in bfloat16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(
            f"--amp=bf16: {torch.cuda.get_device_name(device)} has no bfloat16; "
            "train with --amp=off"
        )


def compile_network(network: nn.Module, device: torch.device) -> nn.Module:
    """A compiled form of `network` that shares its parameters; `network` itself stays as it is.

    Checkpoints are of the network itself, so their names do not change.

    Raises:
        UserError: this machine cannot compile.
    """
    check_compiler(device)
    return torch.compile(network, dynamic=False)


def check_compiler(device: torch.device) -> None:
    """Raise UserError unless torch.compile has the compiler that it needs for a device."""
    # Inductor writes C++ for a CPU; for a GPU Triton writes machine code, and launches it from C.
    chosen, usual = (
        ("CXX", ("g++", "clang++")) if device.type == "cpu" else ("CC", ("gcc", "clang"))
    )
    if platform.system() == "Windows":
        usual = ("cl",)
    candidates = (os.environ[chosen],) if os.environ.get(chosen) else usual
    if not any(shutil.which(name) for name in candidates):
        raise UserError(
            f"--compile: there is no {' or '.join(candidates)} on this machine; "
            f"install one (or name it in {chosen}), or train without --compile"
        )
