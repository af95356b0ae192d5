"""The machine and the versions that a benchmark's figures belong to."""

import argparse
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from util.device import keep_freed_memory


def add_malloc_option(parser: argparse.ArgumentParser) -> None:
    """Add --malloc; a measuring process gives its value to `set_up_malloc`."""
    parser.add_argument(
        "--malloc",
        choices=("kept", "default"),
        default="kept",
        help="kept: on a CPU freed memory stays in the process, as in train.py and test.py",
    )


def set_up_malloc(choice: str) -> None:
    """Have this process allocate as --malloc says."""
    if choice == "kept":
        keep_freed_memory()


def describe_machine(packages: Iterable[str]) -> str:
    """Processor, cores, threads, Python and the versions of `packages`, in one line."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{_processor()}, {os.cpu_count()} logical cores, "
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}; "
        f"Python {platform.python_version()}, {versions}"
    )


def describe_gpu() -> str:
    """Name, memory and driver of the GPUs, a line each, as the driver says."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        return f"GPU: nvidia-smi does not answer ({error})"
    return "\n".join(f"GPU: {line}" for line in done.stdout.splitlines()[1:])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")
